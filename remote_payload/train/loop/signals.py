"""Requests from outside: SIGTERM and SIGINT mean save and end, SIGUSR1 means save and go on. They are noticed between two steps; a
stop is noticed in the middle of an evaluation too.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

GRACE = 45.0  # seconds between SIGTERM and SIGKILL, where nobody asked for another number
SPARE = 15.0  # seconds of it that nothing is begun in
DISK_SPEED = 200e6  # bytes a second


class BrokenOff(BaseException):
    """A stop was asked for inside ``Requests.breaking``. No Exception, so that nothing in between takes it for an error."""


@dataclass(frozen=True)
class Clock:
    """How much of the grace is left."""

    ends_at: float

    def allows(self, size: int) -> bool:
        """Whether there is time to read or write so many bytes, on a disk that is not fast, and to end in peace."""
        return self.ends_at - time.monotonic() > SPARE + size / DISK_SPEED


class Requests:
    """What has been asked for so far. Handlers only set flags; the loop reads them where all ranks agree."""

    def __init__(self) -> None:
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
        """A stop ends what is done inside, at once, with BrokenOff: for what changes nothing, and not where ranks wait for each other."""
        self._breaks = wanted
        try:
            if wanted and self.stop:
                raise BrokenOff
            yield
        finally:
            self._breaks = False

    def clock(self) -> Clock:
        """Of the stop that was asked for; where another rank was asked, of this moment."""
        return Clock((self._stopped_at or time.monotonic()) + GRACE)

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
