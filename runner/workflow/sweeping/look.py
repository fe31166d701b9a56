"""How far a sweep is: every box is asked once for all its runs, and what it answers is noted, so that the results outlive the box."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.domain import places
from runner.domain.answers.reading import Impossible
from runner.domain.answers.results import Results, read_result
from runner.domain.errors import GpurunError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.files import read_json, write_json
from runner.workflow.checkpoints import metric_of
from runner.workflow.each_host import Place, ask_each_host, by_place, place_of
from runner.workflow.observing.follow import remember_status
from runner.workflow.observing.listing import cost
from runner.workflow.observing.status import NOT_THERE, Seen
from runner.workflow.sweeping.find import Part, Sweep

if TYPE_CHECKING:
    from runner.transport.link import Link

NOTED_EVERY = 30.0  # seconds between two notes about a run that goes on


@dataclass(frozen=True)
class Row:
    """One part of a sweep: its newest run, and when (epoch seconds) its status was true. ``unreachable`` says why it is not of now.

    ``results`` are of that time or of an earlier one: they are the run's last if their own status is finished.
    """

    part: Part
    settings: dict[str, str] = field(
        default_factory=dict
    )  # the overrides that are not the same for all runs of the sweep
    results: Results | None = None
    at: float | None = None
    unreachable: str = ""

    @property
    def run(self) -> Run:
        return self.part.newest

    @property
    def over(self) -> bool:
        """Whether nothing more is to be heard of it: the results of its end are here, or it was never started."""
        return not self.run.may_be_there or bool(self.results and self.results.status.finished)

    @property
    def succeeded(self) -> bool:
        """Whether it succeeded, and its last results are here."""
        return self.over and self.run.status is not None and self.run.status.outcome == "succeeded"

    @property
    def metric(self) -> tuple[str, float] | None:
        """The metric that chooses the model, of the chosen one; without one the first metric of the newest evaluation of all."""
        if self.results is None:
            return None
        best, wanted = self.results.best, metric_of(self.run)
        if best is not None and wanted in best.metrics:
            return wanted, best.metrics[wanted]
        newest = max(self.results.evaluations, key=lambda each: each.step or 0, default=None)
        named = newest.metrics if newest else {}
        return next(((name, named[name]) for name in (wanted, *named) if name in named), None)

    @property
    def seen(self) -> Seen:
        """The run as ``gpurun status`` shows it."""
        return Seen(self.run, self.run.status, self.at, self.unreachable or None)

    @property
    def cost(self) -> float | None:
        """What its runs have cost together."""
        costs = [each for run in self.part.runs if (each := cost(run)) is not None]
        return sum(costs) if costs else None


@dataclass(frozen=True)
class View:
    """A sweep as it is known now: a row for each part, in the order of submission."""

    sweep: Sweep
    rows: tuple[Row, ...]

    @property
    def over(self) -> bool:
        return all(row.over for row in self.rows)


def look(sweep: Sweep, report: Reporter) -> View:
    """The sweep after one request to each box that has a run of it which may have changed. A box that cannot be asked is no error."""
    board = _Board(sweep)
    waiting = board.to_ask()
    answers = ask_each_host(by_place(waiting), lambda place, link, told: board.ask(place, link), report)
    for place, error in answers.errors.items():
        board.lost(place, error)
    return board.view


def watch(sweep: Sweep, report: Reporter, show: Callable[[View], None], every: float) -> View:
    """The same again and again, ``every`` so many seconds, until all runs are over; one connection to each box for all that time.

    ``show`` gets the view after each answer, in one thread at a time. Where a box cannot be reached any more, its rows stay as they were.
    """
    board, ended = _Board(sweep, show), threading.Event()

    def ask(place: Place, link: Link, told: Reporter) -> None:
        while not ended.is_set() and board.ask(place, link):
            ended.wait(every)

    try:
        answers = ask_each_host(by_place(board.to_ask()), ask, report)
    finally:
        ended.set()
    for place, error in answers.errors.items():
        board.lost(place, error)
    return board.view


class _Board:
    """The rows, written by the threads of the boxes."""

    def __init__(self, sweep: Sweep, show: Callable[[View], None] = lambda view: None) -> None:
        self._sweep, self._show = sweep, show
        self._lock = threading.Lock()
        differing = sweep.differing
        self._noted_at: dict[str, float] = {}
        self._rows = {part.newest.run_id: known(part, differing[part.first.run_id]) for part in sweep.parts}

    @property
    def view(self) -> View:
        return View(self._sweep, tuple(self._rows.values()))

    def to_ask(self) -> list[Run]:
        """The runs of which something may be heard."""
        return [row.run for row in self._rows.values() if not row.over]

    def ask(self, place: Place, link: Link) -> bool:
        """One request about the runs at ``place``; whether there is more to be heard there."""
        runs = [run for run in self.to_ask() if place_of(run) == place]
        found = link.agent.results([run.run_id for run in runs])
        for run in runs:
            self._take(run, found[run.run_id])
        self._changed()
        return any(not self._rows[run.run_id].over for run in runs)

    def _take(self, run: Run, results: Results) -> None:
        row, now = self._rows[run.run_id], time.time()
        if results.status.cause == NOT_THERE:
            if not run.launched:
                return  # its start was never confirmed, and this box does not know it
            # What was measured stays true, and how it ended too.
            ended = run.status if run.status and run.status.finished else results.status
            results = replace(row.results or results, status=ended)
        before = run.status
        is_new = before is None or (before.phase, before.outcome) != (results.status.phase, results.status.outcome)
        if is_new or results.status.finished or now - self._noted_at.get(run.run_id, 0.0) >= NOTED_EVERY:
            self._noted_at[run.run_id] = now
            remember_status(run, results.status)
            write_json(_file(run), results.as_json())
        run.status, run.status_at = results.status, now
        self._rows[run.run_id] = replace(row, results=results, at=now, unreachable="")

    def lost(self, place: Place, error: GpurunError) -> None:
        """The box cannot be asked."""
        for run in self.to_ask():
            if place_of(run) == place:
                self._rows[run.run_id] = replace(self._rows[run.run_id], unreachable=error.message)
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            self._show(self.view)


def known(part: Part, settings: dict[str, str]) -> Row:
    """What is known here of a part: its newest run's record, and its results as they were noted last."""
    run = part.newest
    try:
        noted = read_result(read_json(_file(run)))
    except Impossible:
        noted = None
    if noted is not None and noted.status.finished and not (run.status and run.status.finished):
        noted = None  # the run was seen to go on since
    return Row(part, settings, noted, run.status_at)


def _file(run: Run) -> Path:
    return places.run_folder(run.run_id) / "results.json"
