"""What a watch brings of a run: the events, into this machine's copy of them, and no more of the log than its end."""

from __future__ import annotations

import os

from runner.domain.run import Run
from runner.domain.terminal import clean
from runner.workflow.observing.follow import LocalCopy

END = 6000  # bytes of the log that are brought at most, and kept


class EventsCopy(LocalCopy):
    """The copy of the events, and in memory the log's end. The copy of the log on disk stays as it is."""

    last_bytes = END

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        start = max(0, self.log_offset - END)
        self._end = os.pread(self._log, END, start)  # what is here already, until more comes
        self._is_of_box = False
        self.log_offset = 0
        self._generation: str | None = None

    @property
    def generation(self) -> str | None:
        return self._generation

    def is_of(self, generation: str) -> None:
        self._generation = generation

    def write_log(self, offset: int, data: bytes) -> bytes:
        """Keeps the end of what is known now; bytes in between may be missing."""
        before = self._end if self._is_of_box and offset == self.log_offset else b""
        self._end, self.log_offset, self._is_of_box = (before + data)[-END:], offset + len(data), True
        return data

    def skip_to(self, offset: int) -> None:
        self.log_offset = max(self.log_offset, offset)

    def start_over(self) -> None:
        self._end, self.log_offset = b"", 0

    def last_lines(self, count: int) -> list[str]:
        """The log's last lines, without control sequences and empty ones; of a line that was written over its newest text."""
        return last_lines(self._end, count)


def last_lines(log: bytes, count: int) -> list[str]:
    """The same of any end of a log."""
    lines = log.decode("utf-8", "replace").split("\n")
    shown = [clean(line.rstrip("\r").rpartition("\r")[2], 1000) for line in lines]
    return [line for line in shown if line][-count:] if count > 0 else []
