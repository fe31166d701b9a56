"""Tables on stdout: aligned columns, not wider than the terminal. In a pipe nothing is truncated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import click

from runner.cli import audience

RIGHT = ("size", "cost", "step")  # columns of numbers, aligned to the right
GAP = "  "
T = TypeVar("T")


def print_rows(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    empty: str,
    *,
    shrink: Mapping[str, int] | None = None,
    drop: Sequence[str] = (),
) -> None:
    """Prints a table without its empty columns, or the line ``empty`` if it has no rows. Control sequences are removed from cells.

    If the terminal is too narrow, the columns in ``shrink`` are truncated, to at least the given number of characters. Then the
    columns in ``drop`` are left out, in their order. Other columns are never truncated, so that an id can be copied.
    """
    if not rows:
        return click.echo(empty)
    title, *lines = rendered(columns, rows, audience.columns(), shrink=shrink, drop=drop)
    click.echo(click.style(title, bold=True), color=audience.colours())
    for line in lines:
        click.echo(line)


def rendered(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    shrink: Mapping[str, int] | None = None,
    drop: Sequence[str] = (),
) -> list[str]:
    """The lines of the same table, its titles first, fitted to ``width`` characters; None: as wide as it is."""
    from runner.domain.terminal import clean

    cells = [[clean(cell) for cell in row] for row in rows]
    names, cells = _without_empty(list(columns), cells)
    widths = [max(len(name), *(len(row[place]) for row in cells)) for place, name in enumerate(names)]
    if width is not None:
        names, cells, widths = fitted(names, cells, widths, width, shrink or {}, drop)
    return [_line(names, row, widths) for row in (names, *cells)]


def fitted(
    names: list[str],
    cells: list[list[str]],
    widths: list[int],
    width: int,
    shrink: Mapping[str, int],
    drop: Sequence[str],
) -> tuple[list[str], list[list[str]], list[int]]:
    """The names, cells and widths of the same table, not wider than ``width`` characters if that is possible."""
    widths = list(widths)
    for name, least in shrink.items():
        if name in names:
            place = names.index(name)
            too_wide = max(0, _total(widths) - width)
            widths[place] = max(min(widths[place], max(least, len(name))), widths[place] - too_wide)
    for name in drop:
        if _total(widths) > width and name in names:
            place = names.index(name)
            names, widths = _without(names, place), _without(widths, place)
            cells = [_without(row, place) for row in cells]
    return names, cells, widths


def _without_empty(names: list[str], cells: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The names and cells without the columns whose cells are all empty."""
    used = [place for place in range(len(names)) if any(row[place] for row in cells)]
    return [names[place] for place in used], [[row[place] for place in used] for row in cells]


def _without(items: list[T], place: int) -> list[T]:
    return items[:place] + items[place + 1 :]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _line(names: Sequence[str], row: Sequence[str], widths: Sequence[int]) -> str:
    shown = []
    for name, cell, width in zip(names, row, widths, strict=True):
        cell = cell if len(cell) <= width else cell[: width - 1] + "…"
        shown.append(cell.rjust(width) if name in RIGHT else cell.ljust(width))
    return GAP.join(shown).rstrip()
