"""A curve of any length in a few hundred pieces, brought up to date at the cost of its new points alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runner.domain.history import Curve

PIECES = 512  # at most; at least half of them once the curve is that long


@dataclass
class Piece:
    """Neighbouring points: the first one's step, and the lowest and highest value (NaN where none is a number)."""

    step: int
    low: float
    high: float

    def join(self, other: Piece) -> None:
        """Takes in the piece behind it."""
        self.low = _least(self.low, other.low)
        self.high = -_least(-self.high, -other.high)


def _least(one: float, other: float) -> float:
    return other if math.isnan(one) else one if math.isnan(other) else min(one, other)


class Sketch:
    """The pieces of one curve, all of equally many points but the last. No peak is lost."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.last_step = 0
        self._size = 1  # points of a piece
        self._in_last = 0
        self._read = 0
        self._newest = (0, 0.0)

    def update(self, curve: Curve) -> None:
        """Takes in what the curve has now. A run that went back to a checkpoint is drawn anew."""
        read = self._read
        if read > len(curve) or (read and (curve.steps[read - 1], curve.times[read - 1]) != self._newest):
            self.__init__()  # type: ignore[misc]
        for place in range(self._read, len(curve)):
            self._add(curve.steps[place], curve.values[place])
        self._read = len(curve)
        if self._read:
            self.last_step = curve.steps[-1]
            self._newest = (curve.steps[-1], curve.times[-1])

    def _add(self, step: int, value: float) -> None:
        point = Piece(step, value, value)
        if self.pieces and self._in_last < self._size:
            self.pieces[-1].join(point)
            self._in_last += 1
            return
        if len(self.pieces) == PIECES:
            self._halve()
        self.pieces.append(point)
        self._in_last = 1

    def _halve(self) -> None:
        """Two pieces become one; all are full when this is called."""
        for first, second in zip(self.pieces[::2], self.pieces[1::2], strict=True):
            first.join(second)
        del self.pieces[1::2]
        self._size *= 2
