"""How a sweep is looked at, over random histories of boxes that answer, are away, or lost a run.

stand_in: the boxes, whose answers and silences are drawn here; their connections with them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner import store
from runner.domain.answers.results import Evaluation, Results
from runner.domain.answers.status import Status
from runner.domain.errors import ConnectFailed, GpurunError
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.workflow.each_host import Answers, Place
from runner.workflow.observing.status import NOT_THERE
from runner.workflow.sweeping import look as looking
from runner.workflow.sweeping.find import find_sweep
from runner.workflow.sweeping.look import View, look, watch

pytestmark = pytest.mark.stand_in
HOSTS = ("a", "b", "c")


class Boxes:
    """What each run has come to, which boxes answer, and what they were asked."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.now = {run.run_id: Results(Status(run.run_id, "running", started_at=1.0, now=2.0)) for run in runs}
        self.away: set[str] = set()
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self._lock = threading.Lock()

    def results(self, host: str, run_ids: list[str]) -> dict[str, Results]:
        with self._lock:
            self.asked.append((host, tuple(run_ids)))
        return {run_id: self.now[run_id] for run_id in run_ids}

    def goes_on(self, run_id: str, draw: random.Random) -> None:
        """It trains on, ends, or its folder is deleted."""
        before = self.now[run_id]
        what = draw.choice(["trains", "trains", "ends", "fails", "deleted"])
        if before.status.finished and what != "deleted":
            return
        if what == "deleted":
            self.now[run_id] = Results(Status(run_id, "finished", "lost", NOT_THERE))
            return
        outcome = {"ends": "succeeded", "fails": "failed"}.get(what)
        status = replace(before.status, phase="finished" if outcome else "running", outcome=outcome)
        step = len(before.evaluations) + draw.randint(1, 9)
        evaluations = (Evaluation("validation", step, {"loss": draw.random()}),)
        self.now[run_id] = Results(status, evaluations, None, 5, step, 5 * step)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    found = []
    for number in range(7):
        run_id = f"a-seed-{number}-20260102-142030-{number:04x}"
        found.append(
            Run(
                run_id, Job("a"), HOSTS[number % 3], float(number), launched=True, experiment="a", submission="3fa9c210"
            )
        )
        store.create(found[-1])
    return found


@pytest.fixture
def boxes(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> Boxes:
    made = Boxes(runs)

    def ask_each(places: Iterable[Place], ask: Callable[..., Any], report: object) -> Answers[Place, Any]:
        answers: Answers[Place, Any] = Answers()
        for place in places:
            agent = SimpleNamespace(results=lambda run_ids, place=place: made.results(place.host, run_ids))
            try:
                if place.host in made.away:
                    raise ConnectFailed(f"{place.host} is away")
                answers.given[place] = ask(place, SimpleNamespace(agent=agent), report)
            except GpurunError as error:
                answers.errors[place] = error
        return answers

    monkeypatch.setattr(looking, "ask_each_host", ask_each)
    return made


@pytest.mark.parametrize("seed", range(30))
def test_nothing_that_was_seen_is_lost_and_what_is_over_is_asked_no_more(
    runs: list[Run], boxes: Boxes, seed: int
) -> None:
    draw = random.Random(f"look-{seed}")
    ended: dict[str, Status] = {}
    measured: dict[str, tuple[Evaluation, ...]] = {}
    for _ in range(12):
        for run in runs:
            if draw.random() < 0.4:
                boxes.goes_on(run.run_id, draw)
        boxes.away = {host for host in HOSTS if draw.random() < 0.3}
        boxes.asked.clear()
        view = look(find_sweep("3fa9c210"), Silent())
        _each_box_was_asked_once_for_what_may_change(boxes, ended)
        for row in view.rows:
            run_id = row.run.run_id
            if row.run.host in boxes.away and run_id not in ended:
                assert row.unreachable == f"{row.run.host} is away"
            elif run_id not in ended:
                assert not row.unreachable and row.run.status is not None
                if row.run.status.finished:
                    ended[run_id] = row.run.status
            if run_id in ended:
                assert store.load(run_id).status == ended[run_id], "how it ended was replaced"
                assert row.over
            found = row.results.evaluations if row.results else ()
            assert found or not measured.get(run_id), "what was measured is gone"
            measured[run_id] = found
    assert [row.run.run_id for row in view.rows] == [run.run_id for run in runs]


def _each_box_was_asked_once_for_what_may_change(boxes: Boxes, ended: dict[str, Status]) -> None:
    hosts = [host for host, _ in boxes.asked]
    assert len(hosts) == len(set(hosts)), boxes.asked
    assert not {run_id for _, run_ids in boxes.asked for run_id in run_ids} & set(ended)


def test_watching_ends_by_itself_when_all_are_over_and_shows_each_answer(runs: list[Run], boxes: Boxes) -> None:
    seen: list[View] = []

    def show(view: View) -> None:
        seen.append(view)
        for run in runs:
            status = replace(boxes.now[run.run_id].status, phase="finished", outcome="succeeded")
            boxes.now[run.run_id] = replace(boxes.now[run.run_id], status=status)

    view = watch(find_sweep("3fa9c210"), Silent(), show, every=0.0)
    assert view.over and not seen[0].over and len(seen) == 4, "the first box is asked twice, the others once"


def test_a_run_that_a_box_does_not_know_and_whose_start_was_never_confirmed_stays_as_it_was(
    runs: list[Run], boxes: Boxes
) -> None:
    store.update(runs[0], launched=False, attempted=True)
    boxes.now[runs[0].run_id] = Results(Status(runs[0].run_id, "finished", "lost", NOT_THERE))
    row = look(find_sweep("3fa9c210"), Silent()).rows[0]
    assert row.results is None and store.load(runs[0].run_id).status is None
