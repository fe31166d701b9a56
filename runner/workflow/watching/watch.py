"""Runs while somebody looks on: one thread and one link a box, and on it one request at a time, for events and the end of the log.

The main thread reads what has come (``Watched``) when ``changed`` is set; it alone reads the events from this machine's copy.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from runner import store
from runner.domain.answers.status import Status
from runner.domain.errors import ConnectFailed, GpurunError, RunLost, StateError, UnknownRun
from runner.domain.history import History
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.workflow.connect import connect, resolve_or_start_host
from runner.workflow.each_host import Place, ask_each_host, by_place, place_of
from runner.workflow.observing.follow import catch_up
from runner.workflow.observing.history import LiveHistory
from runner.workflow.observing.logs import went_on
from runner.workflow.observing.status import NOT_THERE, Seen, error_of, not_there
from runner.workflow.watching.events_copy import EventsCopy

if TYPE_CHECKING:
    from runner.transport.link import Link

EVERY = 2.0  # seconds between two rounds of questions to a box
NOTED_EVERY = 30.0  # seconds between two notes in a run's record, unless its phase changes
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a lost link is tried again
LINES = 60  # of the log, at most


class Watched:
    """One run. ``trouble``: why its box cannot be asked now. ``over``: nothing more is to be heard, by its end or by ``error``."""

    def __init__(self, run: Run) -> None:
        self.trouble = ""
        self._begin(run)
        known = run.status is not None and run.status.finished
        self.over = known and any(mark.kind == "ended" for mark in self.history().marks)  # all of it is here
        if self.over:
            self.follow_record()

    def _begin(self, run: Run) -> None:
        self.run = run
        self.error: GpurunError | None = None
        self.over = False
        self._ended = False  # its end was seen; what was written at that very moment comes with the next look
        self._noted_at = 0.0
        self._live = LiveHistory(run)
        self._copy = EventsCopy(run)
        self.log = self._copy.last_lines(LINES)  # without control sequences

    @property
    def seen(self) -> Seen:
        """As ``gpurun status`` shows it."""
        return Seen(self.run, self.run.status, self.run.status_at, self.trouble or None)

    def history(self) -> History:
        """With all events that are here now; for one thread alone."""
        return self._live.update()

    @property
    def failure(self) -> GpurunError | None:
        """Why nothing more is heard of it, or how it failed."""
        return self.error or (error_of(self.run.status) if self.run.status else None)

    def look(self, link: Link) -> None:
        """One request. Raises HostError."""
        try:
            status = catch_up(link, self.run, note=False, copy=self._copy)
        except RunLost as error:
            return self.give_up(error)
        self.log, self.trouble = self._copy.last_lines(LINES), ""
        if status.cause == NOT_THERE and not self.run.launched:
            return self.give_up(not_there(self.run))
        known = self.run.status
        if status.cause != NOT_THERE or not (known and known.finished):  # how it ended stays true
            self._note(status)
        self.over, self._ended = status.finished and (self._ended or status.cause == NOT_THERE), status.finished
        if self.over:
            self.follow_record()

    def _note(self, status: Status) -> None:
        """Into the record now and then; which file the log is, is not noted: its copy here stays as it is."""
        before, now = self.run.status, time.time()
        is_new = before is None or (before.phase, before.outcome) != (status.phase, status.outcome)
        if is_new or now - self._noted_at >= NOTED_EVERY:
            self._noted_at = now
            store.update(self.run, status=status, status_at=now)
        self.run.status, self.run.status_at = status, now

    def lost(self, error: GpurunError) -> None:
        """Its box cannot be asked. What is known to have ended is not waited for, nor what another try does not mend."""
        self.over = bool(self.run.status and self.run.status.finished)
        if not (self.over or error.retryable):
            return self.give_up(error)
        self.trouble = error.message
        self.follow_record()

    def give_up(self, error: GpurunError) -> None:
        """Nothing more is heard of it."""
        self.error, self.over = error, True

    def follow_record(self) -> None:
        """Takes over what another command has noted: that the run went on as another one, or that its box has another address."""
        later = went_on(self.run)
        if later is not None and later.may_be_there:
            return self._begin(later)
        try:
            record = store.load(self.run.run_id)
        except (UnknownRun, StateError):
            return
        self.run.host, self.run.volume, self.run.address = record.host, record.volume, record.address


class Watch:
    """These runs, looked at until the block ends or all are over."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = [Watched(run) for run in runs]
        self.changed = threading.Event()
        self._ending = threading.Event()
        self._threads: dict[Place, threading.Thread] = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ending.set()

    def goes_on(self) -> bool:
        """Whether a run is left. Starts the threads that are missing."""
        left = [watched for watched in self.runs if not watched.over]
        for place in {place_of(watched.run) for watched in left}:
            if place not in self._threads or not self._threads[place].is_alive():
                self._threads[place] = threading.Thread(target=self._stay, args=(place,), daemon=True)
                self._threads[place].start()
        return bool(left)

    def look_once(self) -> None:
        """One look at each run, over one link a box. Why a box cannot be asked stands with its runs."""

        def ask(place: Place, link: Link, told: object) -> None:
            for watched in self._at(place):
                watched.look(link)

        answers = ask_each_host(by_place(watched.run for watched in self.runs), ask, Silent())
        for place, error in answers.errors.items():
            for watched in self._at(place):
                watched.trouble = error.message

    def _at(self, place: Place) -> list[Watched]:
        return [watched for watched in self.runs if place_of(watched.run) == place and not watched.over]

    def _stay(self, place: Place) -> None:
        """The thread of one box: opens the link again for as long as a run is left there."""
        pause = FIRST_PAUSE
        while (runs := self._at(place)) and not self._ending.is_set():
            try:
                self._visit(place)
                pause = FIRST_PAUSE
            except ConnectFailed as error:
                if any(not watched.trouble for watched in runs):  # it was there until now
                    pause = FIRST_PAUSE
                for watched in runs:
                    watched.lost(error)
            except GpurunError as error:
                for watched in runs:
                    watched.give_up(error)
            except Exception as error:  # a thread that is silently gone would leave a picture that never changes
                for watched in runs:
                    watched.give_up(
                        GpurunError(f"{type(error).__name__}: {error}", meaning="This is a bug of gpurun's.")
                    )
            self.changed.set()
            self._ending.wait(pause * random.uniform(0.7, 1.3))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _visit(self, place: Place) -> None:
        """One link, until no run is left here."""
        with connect(resolve_or_start_host(*place), Silent()) as link:
            while runs := self._at(place):
                for watched in runs:
                    watched.look(link)
                self.changed.set()
                if self._ending.wait(EVERY):
                    return
