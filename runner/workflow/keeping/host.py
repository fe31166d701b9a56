"""Keeps the runs of one host: opens a link to it again whenever it breaks, for as long as a run is left.

Before each try the records are read again: where a run's record names another address by then (``gpurun hosts move``), the keeper of
that address has it from there on. An address at which another key answers is left alone until the user has done something.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner import store
from runner.domain import places
from runner.domain.errors import AbsurdAnswer, DiskTrouble, GpurunError, HostError, HostKeyChanged, UserError
from runner.domain.progress import Silent, Stage
from runner.domain.quantities import format_duration
from runner.workflow.connect import connect, resolve_or_start_host
from runner.workflow.each_host import Place, place_of
from runner.workflow.keeping.board import Board, KeptRun
from runner.workflow.keeping.bring import begin
from runner.workflow.keeping.rule import Rule
from runner.workflow.keeping.visit import Visit

FIRST_PAUSE = 0.5  # seconds before a broken link is opened again
LONGEST_PAUSE = 30.0
LOOK_AT_RECORDS = 1.0  # seconds between two looks at the records of the runs during a pause
LATER_RUNS_EVERY = 5.0  # seconds between two looks at all records, for runs that go on from one that cannot be reached


class HostKeeper(threading.Thread):
    """The runs on the board that are at ``where``, until none of them is left there."""

    def __init__(self, where: Place, board: Board, rule: Rule) -> None:
        super().__init__(name=f"keep {where[0]}", daemon=True)
        self.where = where
        self._board, self._rule = board, rule
        self._told: set[str] = set()  # the kinds of trouble that were told since the link was lost
        self._lost_at: float | None = None
        self._look_for_later = 0.0

    def run(self) -> None:
        """Raises nothing: what goes wrong with a run stands on the board."""
        pause = FIRST_PAUSE
        while runs := self.runs():
            try:
                self._visit()
                pause = FIRST_PAUSE
            except (HostError, DiskTrouble, OSError) as trouble:
                error = trouble if isinstance(trouble, GpurunError) else HostError(str(trouble))
                if self._lost_at is None:
                    self._lost_at, pause = time.time(), FIRST_PAUSE
                self._tell(error, runs)
                self._wait(pause * random.uniform(0.7, 1.3), isinstance(error, HostKeyChanged))
                pause = min(pause * 2, LONGEST_PAUSE)
            except GpurunError as error:
                self._give_up(runs, error)
            except Exception as error:
                # Its message ends these runs here, rather than a thread that is silently gone.
                bug = GpurunError(f"{type(error).__name__}: {error}", meaning="This is a bug of gpurun's.")
                self._give_up(runs, bug)

    def runs(self) -> list[KeptRun]:
        """Those that are left here, by their records as they are now."""
        if self._board.stopping.is_set():
            return []
        for kept in [each for each in self._board.left if place_of(each.run) == self.where]:
            changed_at = _time_of(places.run_folder(kept.run.run_id) / "run.json")
            if changed_at == kept.record_of:
                continue
            try:
                kept.record(store.load(kept.run.run_id), changed_at)
            except UserError as error:
                kept.give_up(error)
        self._follow_to_other_boxes()
        return [each for each in self._board.left if place_of(each.run) == self.where]

    def _visit(self) -> None:
        """One link, until no run is left here. Raises the error that ended it."""
        host = resolve_or_start_host(*self.where)
        visit = Visit(self._board, self._rule, self.runs)
        try:
            with connect(host, Lines(self._board)) as link:
                visit.look(link)
                self._connected(str(host))
                visit.stay(link)
        finally:
            visit.end()

    def _connected(self, host: str) -> None:
        if self._lost_at is not None:
            self._board.say(f"{host}: connected again after {format_duration(time.time() - self._lost_at)}")
        self._lost_at, self._told = None, set()

    def _tell(self, error: GpurunError, runs: list[KeptRun]) -> None:
        """Says each kind of trouble once. A box that answers what no box can mean is asked no more."""
        if isinstance(error, AbsurdAnswer):
            return self._give_up(runs, error)
        for kept in runs:
            kept.unreachable = error.message
        kind = "link" if error.retryable else type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            waits = isinstance(error, HostKeyChanged)
            going_on = "nothing is sent there until you forgot or moved the host" if waits else "trying again"
            hint = "" if error.retryable else f"\n  {error.hint}"
            self._board.warn(f"{error.message}; {going_on} (what runs there does not need this machine){hint}")

    def _follow_to_other_boxes(self) -> None:
        """A run whose box is gone may have been resumed on another one: the run that goes on from it is kept in its place."""
        gone = [kept for kept in self._board.left if kept.unreachable and place_of(kept.run) == self.where]
        if not gone or time.monotonic() < self._look_for_later:
            return
        self._look_for_later = time.monotonic() + LATER_RUNS_EVERY
        later = {run.parent: run for run in store.load_all()[0] if run.parent and run.launched}
        known = {kept.run.run_id for kept in self._board.runs}
        for kept in gone:
            if (run := later.get(kept.run.run_id)) is None:
                continue
            if run.run_id not in known:
                self._board.say(f"{kept.run.run_id} goes on as {run.run_id}, which is kept from now on")
                self._board.runs.append(begin(run))
            kept.goes_on_as, kept.over = run.run_id, True

    def _give_up(self, runs: list[KeptRun], error: GpurunError) -> None:
        for kept in runs:
            kept.give_up(error)

    def _wait(self, seconds: float, for_the_user: bool) -> None:
        """A pause; it ends early with the command, and where a run has moved. ``for_the_user``: only once they changed pins or records."""
        end, here = time.monotonic() + seconds, _names(self.runs())
        pins = _time_of(places.known_hosts())
        while (
            (for_the_user or time.monotonic() < end)
            and _names(self.runs()) == here
            and _time_of(places.known_hosts()) == pins
        ):
            if self._board.stopping.wait(min(LOOK_AT_RECORDS, seconds)):
                return


def _names(runs: list[KeptRun]) -> set[str]:
    return {kept.run.run_id for kept in runs}


def _time_of(file: Path) -> int:
    """Another number when the file was replaced; 0 where there is none."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


class Lines(Silent):
    """Says what is told while a link is opened, and shows no stages: a first contact is worth a line, the hundredth try is not."""

    def __init__(self, board: Board) -> None:
        self._board = board

    @contextmanager
    def stage(self, title: str, unit: str = "") -> Iterator[Stage]:
        yield self

    def note(self, text: str) -> None:
        self._board.say(text)

    def warn(self, text: str) -> None:
        self._board.warn(text)
