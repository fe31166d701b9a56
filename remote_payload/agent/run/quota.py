"""What a run may use: time, money, and disk for its log.

Of a log that grows without limit the newest part is kept. Offsets stay valid, and the payload does not notice: it writes to the file
itself, so that the file cannot be renamed or truncated. A hole is punched into its beginning instead (fallocate(2),
FALLOC_FL_PUNCH_HOLE): the disk is freed, size and offsets stay.
"""

import ctypes
import os
import time
from typing import Optional

from remote_payload.agent.run.order import LaunchFile

PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
BLOCK = 1 << 16  # no filesystem has larger blocks
SHARE = 4  # a log gets a quarter of the disk that would be free without it: training must not end because its log fills the disk
LEAST = 8 << 20
WARNED_AT = 0.9  # of the time


class LogQuota:
    """The quota of one log, enforced every second."""

    def __init__(self, path: str, limit: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._limit = limit
        self._given_up = False

    def enforce(self) -> Optional[str]:
        """Frees the beginning when the log takes more than the limit or its share of the disk; the newest three quarters of it stay.

        Gives a message, once, where the filesystem has no holes: the log then grows on.
        """
        found = os.fstat(self._descriptor)
        limit = self._allowed(found.st_blocks * 512)
        if self._given_up or found.st_blocks * 512 <= limit:
            return None
        end = (found.st_size - limit * 3 // 4) // BLOCK * BLOCK
        if end <= 0 or _punch(self._descriptor, end):
            return None
        self._given_up = True
        return "the log is over its limit of %d bytes and this filesystem cannot free the beginning of a file" % limit

    def _allowed(self, taken: int) -> int:
        space = os.fstatvfs(self._descriptor)
        return min(self._limit, max(LEAST, (taken + space.f_bavail * space.f_frsize) // SHARE))


def _punch(descriptor: int, end: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    punch = getattr(libc, "fallocate64", None) or libc.fallocate
    punch.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(punch(descriptor, PUNCH_HOLE_KEEP_SIZE, 0, end) == 0)


class Limit:
    """How long a run that has just begun may last: ``kind`` is the exit's, ``name`` the job's field.

    ``time_limit`` is its own time, ``cost_limit`` the time that its money lasts.
    """

    def __init__(self, kind: str, name: str, seconds: float) -> None:
        self.kind = kind
        self.name = name
        self._seconds = seconds
        self._began = time.monotonic()
        self._warned = False

    def reached(self) -> bool:
        """Whether the run's time is over."""
        return time.monotonic() - self._began > self._seconds

    def warning(self) -> Optional[str]:
        """Once, after nine tenths of the time: what will happen and when."""
        gone = time.monotonic() - self._began
        if self._warned or gone < WARNED_AT * self._seconds:
            return None
        self._warned = True
        left = max(0.0, self._seconds - gone)
        return "nine tenths of its %s are over: in %d min %d s it is asked to save and end" % (
            self.name, left // 60, left % 60,
        )  # fmt: skip


def first_limit(launch: LaunchFile) -> Optional[Limit]:
    """The limit that is reached first, counted from now; None for a run without one."""
    limits = [
        Limit(kind, name, seconds)
        for kind, name, seconds in (
            ("timeout", "time_limit", launch.time_limit),
            ("budget", "cost_limit", launch.cost_limit),
        )
        if seconds is not None
    ]
    return min(limits, key=lambda limit: limit._seconds, default=None)
