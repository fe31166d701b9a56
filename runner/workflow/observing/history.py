"""The history of a run from this machine's copy of its events, and from those of the runs that it resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from runner import store
from runner.domain import places
from runner.domain.errors import StateError, UnknownRun
from runner.domain.history import History
from runner.domain.run import Run
from runner.workflow.observing.timed_log import MARK as TIMES  # of the log's lines: many events, and nothing to draw

LONGEST = 1 << 16  # bytes of an event (ARCHITECTURE.md); a longer line is none


class EventsFile:
    """The copy of a run's events in ``folder``, read while it grows: each call of ``new`` goes on where the last one ended."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "events.jsonl"
        self._read = 0

    @property
    def replaced(self) -> bool:
        """Whether the file is shorter than what was read: it was replaced on the box, and what was read is void."""
        try:
            return os.stat(self._file).st_size < self._read
        except FileNotFoundError:
            return self._read > 0

    def new(self) -> Iterator[object]:
        """The events that came since. A line that has not all arrived is given by a later call; one that is no JSON is left out."""
        try:
            source = self._file.open("rb")
        except FileNotFoundError:
            return
        with source:
            source.seek(self._read)
            for line in source:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                if len(line) <= LONGEST and TIMES not in line:
                    try:
                        yield json.loads(line)
                    except (ValueError, RecursionError):
                        continue


class LiveHistory:
    """The history of a run while its events arrive. ``runs`` are the parts of its story, the run itself last."""

    def __init__(self, run: Run) -> None:
        self.runs = story_of(run)
        self._start()

    def _start(self) -> None:
        self._history = History()
        self._files = [EventsFile(places.run_folder(run.run_id)) for run in self.runs]
        self._told = 0  # the parts whose beginning has its mark

    def update(self) -> History:
        """The history with all events that are here now."""
        if any(file.replaced for file in self._files):
            self._start()
        for place, file in enumerate(self._files):
            for event in file.new():
                self._history.add(event)
                if place > self._told and self._history.seen is not None:
                    self._told = place
                    self._history.mark(self._history.seen, "resume", self._how(place))
        return self._history

    def _how(self, place: int) -> str:
        before, now = self.runs[place - 1], self.runs[place]
        return f"went on as {now.run_id}" + (f" on {now.host}" if now.host != before.host else "")


def history_of(run: Run) -> History:
    """What the events here say of the run and of those that it resumes; empty where none are here."""
    return LiveHistory(run).update()


def story_of(run: Run) -> list[Run]:
    """The run and those that it resumes, of which this machine has a record, the oldest first."""
    story = [run]
    while parent := story[0].parent:
        try:
            before = store.load(parent)
        except (UnknownRun, StateError):
            break
        if before.run_id in {each.run_id for each in story}:
            break
        story.insert(0, before)
    return story
