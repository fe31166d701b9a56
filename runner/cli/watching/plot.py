"""A curve in braille: 2 × 4 dots a character, so 40 characters show 80 points beside each other.

plotext would draw it too. It is not used: what is needed is the few lines below, drawn from pieces that hold every peak, while plotext
keeps one figure a process and draws points one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from runner.cli.watching.sketch import Piece, Sketch

LABEL = 8  # characters for the values at the left, with the space behind them
BRAILLE = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of the left and the right column, from the top


def plot(sketch: Sketch, width: int, height: int, first: int, last: int) -> list[str]:
    """``height`` lines of ``width`` characters: the curve over the steps ``first`` to ``last``, its highest and lowest value at the left.

    Empty lines where it has no number, or where there is no room.
    """
    columns = width - LABEL
    known = [piece for piece in sketch.pieces if not math.isnan(piece.low)]
    if columns < 2 or height < 1 or not known:
        return [""] * height
    low, high = min(piece.low for piece in known), max(piece.high for piece in known)
    cells = [[0] * columns for _ in range(height)]
    for x, top, bottom in _columns(sketch.pieces, 2 * columns, 4 * height, (first, last), (low, high)):
        for y in range(top, bottom + 1):
            cells[y // 4][x // 2] |= DOTS[x % 2][y % 4]
    labels = [""] * height
    if low == high:
        labels[(height - 1) // 2] = _label(low)  # where the line is
    else:
        labels[0], labels[-1] = _label(high), _label(low)
    return [
        f"{label:>{LABEL - 1}} " + "".join(chr(BRAILLE + cell) for cell in row)
        for label, row in zip(labels, cells, strict=True)
    ]


def _columns(
    pieces: Sequence[Piece], wide: int, tall: int, steps: tuple[int, int], values: tuple[float, float]
) -> Iterator[tuple[int, int, int]]:
    """Dots to set: column, and the rows from which and to which, counted from the top."""
    low, high = values
    spread = high / 2 - low / 2  # halves: the difference of two huge numbers would be none

    def row(value: float) -> int:
        above = 0.5 if spread == 0 else (value / 2 - low / 2) / spread
        return min(tall - 1, max(0, round((1 - above) * (tall - 1))))

    def column(step: int) -> int:
        return min(wide - 1, max(0, (step - steps[0]) * (wide - 1) // max(1, steps[1] - steps[0])))

    before: tuple[int, int] | None = None  # column and row where the line ended
    for piece in pieces:
        if math.isnan(piece.low):
            before = None
            continue
        x, top, bottom = column(piece.step), row(piece.high), row(piece.low)
        if before is not None:
            yield from _line(before, (x, top if abs(top - before[1]) < abs(bottom - before[1]) else bottom))
        yield x, top, bottom
        before = (x, bottom if before is not None and before[1] < top else top)


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """A straight line, in each column the rows that it passes."""
    (x0, y0), (x1, y1) = start, end
    for x in range(x0, x1 + 1):
        a, b = (y0 + (y1 - y0) * (2 * (x - x0) + side) // max(1, 2 * (x1 - x0)) for side in (-1, 1))
        a, b = (min(max(y, min(y0, y1)), max(y0, y1)) for y in (a, b))
        yield x, min(a, b), max(a, b)


def _label(value: float) -> str:
    text = f"{value:.4g}"
    return text if len(text) < LABEL else f"{value:.1e}" if len(f"{value:.1e}") < LABEL else f"{value:.0e}"[: LABEL - 1]
