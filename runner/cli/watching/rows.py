"""Rows of a terminal: text with a style, measured in the cells that it takes there (CJK and emoji take two)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

GAP = "   "  # between two facts of one row
_JOINERS = {0x200D: None, 0xFE0F: None}  # terminals do not agree on how wide what they join is


class Span(NamedTuple):
    """Text of one style: ``title``, ``warning``, ``dim``, or plain."""

    text: str
    style: str = ""


Row = tuple[Span, ...]


def fit(text: str, width: int) -> str:
    """The text, truncated to ``width`` cells."""
    if text.isascii():
        return text if len(text) <= width else text[: max(0, width - 1)] + "…"[:width]
    text = text.translate(_JOINERS)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def pad(text: str, width: int) -> str:
    """The text on exactly ``width`` cells."""
    text = fit(text, width)
    return text + " " * (width - cell_len(text))


def flow(facts: Iterable[str], width: int) -> list[str]:
    """Facts beside each other, as many in a row as there is room for; empty ones are left out."""
    rows: list[str] = []
    for fact in filter(None, facts):
        if rows and cell_len(rows[-1]) + len(GAP) + cell_len(fact) <= width:
            rows[-1] += GAP + fact
        else:
            rows.append(fit(fact, width))
    return rows


def beside(columns: Sequence[Sequence[Row]], widths: Sequence[int], gap: str) -> list[Row]:
    """Columns of rows as rows: each row of a column on the cells of its width."""
    found = []
    for place in range(max(map(len, columns), default=0)):
        row: list[Span] = []
        for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
            spans = column[place] if place < len(column) else ()
            used = sum(cell_len(span.text) for span in spans)
            last = number == len(columns) - 1
            row += spans if last else [*spans, Span(" " * (width - used)), Span(gap, "dim")]
        found.append(tuple(row))
    return found


def plain(row: Row) -> str:
    """The row without styles."""
    return "".join(span.text for span in row).rstrip()
