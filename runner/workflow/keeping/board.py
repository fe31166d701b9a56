"""What is known of the runs that are kept, for whoever shows it: written by the threads that keep them, read by the main one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from runner.domain.answers.manifest import Artifact
from runner.domain.answers.verbs import Kept
from runner.domain.errors import GpurunError
from runner.domain.progress import Stage
from runner.domain.quantities import format_size
from runner.domain.run import Run


@dataclass
class KeptRun:
    """One run and what of it is home. ``over``: it has ended and is home, or ``error`` says why nothing more comes."""

    run: Run
    home: Kept | None = None  # the newest checkpoint that is here, verified
    files: int = 0  # brought by this command
    bytes: int = 0
    into: str | None = None
    unreachable: str = ""  # why its box cannot be asked now
    doing: str = ""  # what is under way, such as a copy
    trouble: str = ""  # why the last copy failed; it is tried again
    over: bool = False
    error: GpurunError | None = None
    record_of: int | None = None  # the time of change of the record's file that was read last
    noted_at: float | None = None  # when its status was written into the record
    goes_on_as: str | None = None  # the run that took its place, after a restart of the box or on another one

    @property
    def lost_seconds(self) -> float | None:
        """How many seconds of work would be lost if the box vanished now: those since the newest checkpoint that is here was complete.

        By the box's clock, which goes on while it cannot be asked. None for a run that has not started, and for one that is over here.
        """
        status = self.run.status
        if self.over or status is None or status.started_at is None or status.now is None:
            return None
        now = status.ended_at if status.finished else status.now + max(0.0, time.time() - (self.run.status_at or 0.0))
        since = max(status.started_at, (self.home.at or 0.0) if self.home else 0.0)
        return max(0.0, (now or status.now) - since)

    def record(self, run: Run, changed_at: int) -> None:
        """Takes over the record as it is on disk since ``changed_at``, but for a status that is older than the one that was seen."""
        if (self.run.status_at or 0.0) > (run.status_at or 0.0):
            run.status, run.status_at = self.run.status, self.run.status_at
        self.run, self.record_of = run, changed_at

    def brought(self, new: Sequence[Artifact], into: Path, newest: Kept | None) -> None:
        """Everything that there is now is home."""
        self.files, self.bytes = self.files + len(new), self.bytes + sum(file.size for file in new)
        self.into, self.home, self.trouble = str(into), newest, ""

    def give_up(self, error: GpurunError) -> None:
        """Nothing more comes of this run."""
        self.error, self.over = error, True


def would_be_lost(kept: KeptRun) -> str:
    """``; 3.2 minutes of work would be lost now``, empty where none can be."""
    seconds = kept.lost_seconds
    return "" if seconds is None else f"; {seconds / 60:.1f} minutes of work would be lost now"


@dataclass(frozen=True)
class Line:
    """A line that stays. ``urgent``: a warning."""

    text: str
    urgent: bool = False


@dataclass
class Board:
    """The runs, the lines that are to be shown, and whether everything is to end (Ctrl-C)."""

    runs: list[KeptRun]
    lines: queue.SimpleQueue[Line] = field(default_factory=queue.SimpleQueue)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def left(self) -> list[KeptRun]:
        """The runs that are not over."""
        return [each for each in self.runs if not each.over]

    def say(self, text: str) -> None:
        self.lines.put(Line(text))

    def warn(self, text: str) -> None:
        self.lines.put(Line(text, urgent=True))


class Ended(Exception):
    """The copy under way is to end: its link has broken, or the command was interrupted."""


class RunReporter:
    """The progress of one run's copies: shown as what is under way, without a line for each. Ends them where ``ending`` is set."""

    def __init__(self, board: Board, kept: KeptRun, ending: threading.Event) -> None:
        self._board, self._kept, self._ending = board, kept, ending

    @contextmanager
    def stage(self, title: str, unit: str = "") -> Iterator[Stage]:
        try:
            yield _Stage(self, title, unit)
        finally:
            self.doing("")

    def doing(self, text: str) -> None:
        """Raises Ended where that is asked for: a copy calls this at least once a second."""
        self._kept.doing = text
        if text and (self._ending.is_set() or self._board.stopping.is_set()):
            raise Ended

    def note(self, text: str) -> None:
        self._board.say(text)

    def warn(self, text: str) -> None:
        self._board.warn(text)


class _Stage:
    def __init__(self, reporter: RunReporter, title: str, unit: str) -> None:
        self._reporter, self._title, self._unit = reporter, title, unit

    def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
        parts = [format_size(each) for each in (done, total) if each is not None and self._unit == "bytes"]
        self._reporter.doing(f"{self._title} {' of '.join(parts)}".rstrip())
