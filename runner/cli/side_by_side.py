"""Rows of several runs on a terminal: a table where the values are short, else each different value on lines of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from runner.cli.table import GAP

WIDTH = 80  # of a pipe, which has none: longer values follow below the table, unbroken
NARROWEST = 6  # characters of a column
LONGEST_NAME = 40
INDENT = "  "


@dataclass(frozen=True)
class Line:
    """A name, and a cell for each run, then those of the other columns."""

    name: str
    cells: tuple[str, ...]


def letter(place: int) -> str:
    """What stands for a run in a column's head: A, B, …, Z, AA, AB, …"""
    return (letter(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def side_by_side(heads: Sequence[str], lines: Sequence[Line], runs: int, width: int | None) -> list[str]:
    """The lines to print: first the table of those that fit into it, then the others one below the other.

    ``heads`` are those of the cells: of the ``runs`` first ones each is a run. ``width`` is that of the terminal, None for a pipe, whose
    values are not wrapped.
    """
    widest = (width or WIDTH) - len(INDENT) - len(GAP) * len(heads)
    tables = [_that_fit(lines, names, (widest - names) // len(heads)) for names in {len(line.name) for line in lines}]
    fits = max(tables, key=len, default=[])
    others = [line for line in lines if line not in fits]
    return [*_table(heads, fits), *(each for line in others for each in _below(heads, line, runs, width))]


def _that_fit(lines: Sequence[Line], names: int, cells: int) -> list[Line]:
    """Those whose name and cells have at most so many characters; none where that is too narrow for a column."""
    if cells < NARROWEST or names > LONGEST_NAME:
        return []
    return [line for line in lines if len(line.name) <= names and all(len(each) <= cells for each in line.cells)]


def _table(heads: Sequence[str], lines: Sequence[Line]) -> list[str]:
    if not lines:
        return []
    rows = [("", *heads), *((line.name, *line.cells) for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads) + 1)]
    return [
        (INDENT + GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in rows
    ]


def _below(heads: Sequence[str], line: Line, runs: int, width: int | None) -> list[str]:
    """The name, and below it each different value with the runs that have it."""
    having: dict[str, list[str]] = {}
    for head, cell in zip(heads[:runs], line.cells, strict=False):
        having.setdefault(cell, []).append(head)
    whose = {cell: ", ".join(heads_of_it) for cell, heads_of_it in having.items()}
    others = {cell: head for head, cell in zip(heads[runs:], line.cells[runs:], strict=True) if cell}
    pairs = [*((head, cell) for cell, head in whose.items()), *((head, cell) for cell, head in others.items())]
    column = min(max(len(head) for head, _ in pairs), 20)
    found = [INDENT + line.name]
    for head, cell in pairs:
        start = f"{INDENT * 2}{head.ljust(column)}{GAP}"
        if width is None:
            found.append(start + cell)
        else:
            found += textwrap.wrap(
                cell, width, initial_indent=start, subsequent_indent=" " * (len(INDENT) * 2 + column + len(GAP)),
                break_on_hyphens=False,
            ) or [start.rstrip()]  # fmt: skip
    return found
