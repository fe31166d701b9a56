"""``gpurun watch`` in a pipe: everything that happens is told once, and a run of which nothing is heard has its line a minute."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from runner.cli.watching.lines import EVERY, Lines
from runner.cli.watching.picture import Picture
from runner.domain.history import History
from tests.support.observing.watched import NOW, picture


@pytest.mark.parametrize("seed", range(40))
def test_each_thing_is_told_once_and_no_minute_is_silent(seed: int) -> None:
    dice, lines, told = random.Random(seed), Lines(), list[tuple[float, str]]()
    made = picture(seed, 1)
    made.history = History()
    happened, now = list[str](), NOW
    told += [(now, line) for line in lines.new(made, now)]
    for step in range(1, 300):
        now += dice.choice([0.5, 1.0, 20.0])
        if dice.random() < 0.1:
            made.history.add({"t": now, "type": "checkpoint", "name": f"step-{step:06}", "step": step})
            happened.append(f"checkpoint step-{step:06}")
        if dice.random() < 0.1:
            scores = {"loss": step / 2, "accuracy": 0.5}
            made.history.add({"t": now, "type": "eval", "name": "validation", "step": step, "metrics": scores})
            happened.append(f"validation after step {step}: loss {step / 2:.4g}, accuracy 0.5")
        if dice.random() < 0.05:
            made.trouble = "" if made.trouble else f"as of {step}: the link is lost; trying again"
            happened.append(made.trouble or "connected again")
        told += [(now, line) for line in lines.new(made, now)]
    run_id = made.seen.run.run_id
    assert all(line[8:].startswith(f"  {run_id}  ") for _, line in told)
    said = [line[12 + len(run_id) :] for _, line in told]
    assert sorted(line for line in said if not line.startswith("running")) == sorted(happened)
    times = [at for at, _ in told]
    assert max(after - before for before, after in itertools.pairwise(times)) <= EVERY + 20


def test_the_first_line_says_where_it_stands_and_the_last_how_it_ended() -> None:
    made, lines = picture(1, 20, 0), Lines()
    (first,) = lines.new(made, NOW)
    assert "  left " in first and " at the end" in first
    assert "  running  20/40  loss " in first
    assert lines.new(made, NOW + 1) == []
    assert made.seen.status is not None
    over = dataclasses.replace(made.seen.status, phase="finished", outcome="failed", cause="cuda_oom", ended_at=NOW)
    run = dataclasses.replace(made.seen.run, status=over)
    ended = Picture(dataclasses.replace(made.seen, run=run, status=over), made.history)
    (last,) = lines.new(ended, NOW + 2)
    assert "  failed (cuda_oom)  20/40  " in last and "left" not in last
