"""The lines of a run's log, each with the time at which it was there.

The log itself is the payload's own, byte for byte, so the times are beside it: once a second in which the log has grown, the
supervisor appends an event ``log {size}``, and its time is that of every line that ends up to that size. Both files are read here
from this machine's copies, whose offsets are those of the box.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 5.0  # seconds for which a line waits for its time; on the box a second passes, or nobody notes it any more
MARK = b'"type":"log"'  # as the supervisor writes it: no other event is parsed
LONGEST = 1 << 16  # bytes of a line; a longer one is given in parts


class TimedLog:
    """The log in ``folder`` (``log`` and ``events.jsonl``) from byte ``start`` on, line by line, while both files grow."""

    def __init__(self, folder: Path, start: int = 0) -> None:
        self._log, self._events = folder / "log", folder / "events.jsonl"
        self._at, self._read = start, 0
        self._sizes: list[int] = []
        self._times: list[float] = []  # of the size at the same place
        self._waiting_since: float | None = None

    def lines(self, *, end: bool = False) -> Iterator[tuple[float | None, bytes]]:
        """New lines with their times (the box's clock, epoch seconds), None where nobody noted one. A line without its line break, or whose
        time may still come, is given by a later call; with ``end`` all that is there is given, since nothing will come.
        """
        self._read_times()
        now = time.monotonic()
        late = self._waiting_since is not None and now - self._waiting_since > PATIENCE
        for line in self._whole_lines(end):
            noted = self._time_of(self._at + len(line))
            if noted is None and not (end or late):
                self._waiting_since = self._waiting_since or now
                return
            self._at += len(line)
            yield noted, line.lstrip(b"\0")  # where the box had dropped a part, the copy has a hole
        self._waiting_since = None

    def _whole_lines(self, end: bool) -> Iterator[bytes]:
        try:
            source = self._log.open("rb")
        except FileNotFoundError:
            return
        with source:
            if os.fstat(source.fileno()).st_size < self._at:
                self._at = 0  # it was replaced on the box, and starts again
            source.seek(self._at)
            while line := source.readline(LONGEST):
                if line.endswith(b"\n") or len(line) == LONGEST or end:
                    yield line

    def _time_of(self, size: int) -> float | None:
        place = bisect_left(self._sizes, size)
        return self._times[place] if place < len(self._sizes) else None

    def _read_times(self) -> None:
        try:
            source = self._events.open("rb")
        except FileNotFoundError:
            return
        with source:
            if os.fstat(source.fileno()).st_size < self._read:
                self._read = 0
                self._forget()
            source.seek(self._read)
            for line in source:
                if not line.endswith(b"\n"):
                    return  # it has not all arrived
                self._read += len(line)
                if MARK in line:
                    self._note(line)

    def _note(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            size, moment = int(event["size"]), float(event["t"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return  # the payload may write what it likes
        if event.get("type") != "log" or not 0 <= moment < 1e11:
            return
        if self._sizes and size <= self._sizes[-1]:
            self._forget()  # the log was replaced
        self._sizes.append(size)
        self._times.append(moment)

    def _forget(self) -> None:
        self._sizes.clear()
        self._times.clear()


def in_words(moment: float | None) -> str:
    """The time as this machine's clock shows it, to the second; as many blanks where there is none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment is not None else " " * 19
