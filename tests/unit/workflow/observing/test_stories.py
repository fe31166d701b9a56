"""The list of runs shows those that go on from one another as one story."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from runner.domain.recorded_job import read_job
from runner.domain.run import Run
from runner.workflow.observing.listing import as_stories


def made(number: int, parent: Run | None) -> Run:
    name = f"a-20260102-1420{number:02}-{number:04x}"
    job = read_job({"name": "a", "command": ["true"]}, Path("/nowhere"))
    return Run(name, job, "box", float(number), parent=parent.run_id if parent else None)


@pytest.mark.parametrize("seed", range(20))
def test_parts_stand_together_in_order_and_the_newest_run_in_the_last_story(seed: int) -> None:
    draw = random.Random(f"stories-{seed}")
    runs: list[Run] = []
    for number in range(draw.randint(1, 12)):
        runs.append(made(number, draw.choice([None, *runs])))
    first = {run.run_id: run.run_id for run in runs if run.parent is None}
    for run in runs:
        if run.parent is not None:
            first[run.run_id] = first[run.parent]
    shown = as_stories(runs)
    assert sorted(run.run_id for run, _ in shown) == sorted(run.run_id for run in runs)
    assert [goes_on for _, goes_on in shown] == [first[run.run_id] != run.run_id for run, _ in shown]
    stories = [first[run.run_id] for run, _ in shown]
    assert [one for one, before in zip(stories, [None, *stories], strict=False) if one != before] == list(
        dict.fromkeys(stories)
    ), "a story is torn"
    assert stories[-1] == first[runs[-1].run_id]


def test_a_part_whose_beginning_is_not_listed_begins_a_story() -> None:
    first = made(0, None)
    second = made(1, first)
    third = made(2, second)
    assert [(run.run_id, goes_on) for run, goes_on in as_stories([second, third])] == [
        (second.run_id, False),
        (third.run_id, True),
    ]
