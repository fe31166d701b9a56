"""Requests from outside: SIGTERM and SIGINT mean save and end, SIGUSR1 means save and continue. They are noticed between two steps;
a stop is noticed in the middle of an evaluation too.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from remote_payload.train.state.grace import Clock, Grace


class BrokenOff(BaseException):
    """A stop was asked for inside ``Requests.breaking``. Not an Exception, so that no ``except Exception`` catches it."""


class Requests:
    """What was requested so far. Handlers only set flags; the loop reads them at points where all ranks agree."""

    def __init__(self, grace: Grace | None = None) -> None:
        self.grace = grace or Grace()
        self.stop = 0  # the signal's number
        self.save = False
        self._stopped_at: float | None = None
        self._breaks = False

    def listen(self) -> None:
        """Installs the handlers (main thread only). A second SIGINT ends at once, as people expect of Ctrl-C."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGUSR1, self._save)

    @contextmanager
    def breaking(self, wanted: bool = True) -> Iterator[None]:
        """Inside, a stop raises BrokenOff at once. Only for work that changes nothing, and in which no rank waits for another."""
        self._breaks = wanted
        try:
            if wanted and self.stop:
                raise BrokenOff
            yield
        finally:
            self._breaks = False

    @contextmanager
    def breaking_after(self, seconds: float) -> Iterator[None]:
        """Inside, BrokenOff is raised after so many seconds. For work that changes nothing, after a stop."""

        def end(number: int, frame: FrameType | None) -> None:
            raise BrokenOff

        before = signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def clock(self) -> Clock:
        """From the time of the stop request; if another rank received it, from now."""
        return Clock((self._stopped_at or time.monotonic()) + self.grace.seconds, self.grace.speed)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stop = number
        self._stopped_at = self._stopped_at or time.monotonic()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._breaks:
            self._breaks = False
            raise BrokenOff

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save = True
