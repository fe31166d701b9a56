"""``gpurun status``: names, units and what comes next, for a run in any phase; and whatever a box says, each value has one line."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.cli import figures
from runner.cli.status import facts
from runner.domain.answers.status import OUTCOMES, PHASES, Status
from runner.domain.job import Job
from runner.domain.run import OtherBox, Refusal, Run
from runner.workflow.observing.at_home import AtHome
from runner.workflow.observing.status import NOT_THERE, Seen

RUN_ID = "legal-20260102-142030-7f3a"
NOTHING = AtHome(None, complete=False, checkpoints=())
GPU = {
    "index": 0,
    "temperature": 64,
    "power": 412.3,
    "utilisation": 97,
    "memory_used": 61 << 30,
    "memory_total": 80 << 30,
}
TOLD = {
    "step": {
        "step": 46, "total": 68, "epoch": 1.35, "loss": 0.0046, "lr": 2.8e-4, "grad_norm": 0.05, "tokens_per_second": 1904.2,
        "ms": 573.2, "mfu": 0.41, "memory": 61 << 30,
    },
    "eval": {"name": "validation", "step": 34, "metrics": {"loss": 0.04, "accuracy": 0.98}},
    "checkpoint": {"name": "step-000034"},
    "hardware": {
        "gpus": [GPU, {**GPU, "index": 1}, {**GPU, "index": 2, "power": None}],
        "cpu": 34.2, "cpus": 16, "ram": {"used": 12 << 30, "total": 64 << 30}, "disk": {"free": 69e9, "total": 270e9},
    },
}  # fmt: skip


def seen(status: Status | None, **fields: Any) -> Seen:
    job = Job("legal", recipe="sft", price_per_hour=3.6)
    run = Run(RUN_ID, job, "root@box", 1e9, address="root@1.2.3.4:22", status=status, status_at=1e9)
    run = replace(run, **{"launched": True, **fields})
    return Seen(run, status, 1e9)


def running(**fields: Any) -> Status:
    return replace(Status(RUN_ID, "running", gpus=(0, 2), started_at=1e9 - 300, now=1e9, progress=TOLD), **fields)


def shown(status: Status | None, home: AtHome = NOTHING, **fields: Any) -> dict[str, str]:
    told = facts(seen(status, **fields), home, "")
    return {name: value for name, value in told if name}


def test_a_running_run_is_told_with_units() -> None:
    told = facts(seen(running()), NOTHING, "")
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(1e9 + 22 * 0.5732))
    assert told == [
        ("run", RUN_ID),
        ("host", "root@box  root@1.2.3.4:22"),
        ("status", "running"),
        ("progress", "46 of 68 steps (68 %), epoch 1.35"),
        ("left", f"12.6s, until about {until}"),
        ("pace", "573 ms a step, 1,904 tokens/s, MFU 41 %, GPU memory up to 61.0 GiB"),
        ("training", "loss 0.0046, learning rate 0.00028, gradient norm 0.05"),
        ("evaluation", "validation after step 34: loss 0.04, accuracy 0.98"),
        ("checkpoint", "step-000034"),
        ("GPU 0", " 97 %   61.0 of 80.0 GiB   64 °C   412 W"),
        ("GPU 2", " 97 %   61.0 of 80.0 GiB   64 °C"),
        ("memory", "12.0 of 64.0 GiB"),
        ("processors", "34 % of 16"),
        ("disk", "69.0 of 270.0 GB free"),
        ("elapsed", "5m 00s"),
        ("cost", "0.30 so far, about 0.31 at the end"),
        ("outputs", "on the box; nothing is home"),
        ("next", "gpurun watch    gpurun logs -f    gpurun fetch    gpurun stop"),
    ]
    assert max(12 + len(value) for _, value in told) <= 80


def ended(outcome: str, **fields: Any) -> Status:
    return running(phase="finished", outcome=outcome, ended_at=1e9 - 10, **fields)


def test_what_comes_next_fits_the_phase() -> None:
    here = Path("/home/ada/out")
    whole, part = AtHome(here, True, ("step-000034", "best")), AtHome(here, False, ("step-000034",))
    assert shown(running(phase="prepared"))["next"] == "gpurun watch    gpurun logs -f    gpurun stop"
    assert shown(ended("succeeded"))["next"] == "gpurun fetch"
    assert shown(ended("succeeded"), whole)["next"] == "gpurun smoke-test    gpurun done"
    assert "next" not in shown(ended("succeeded"), whole, done=True)
    assert shown(ended("failed"))["next"] == "gpurun logs --tail 50    gpurun resume    gpurun fetch"
    assert shown(ended("failed", progress={}))["next"] == "gpurun logs --tail 50    gpurun fetch"
    assert shown(ended("lost", cause=NOT_THERE))["next"] == "gpurun status --host NEW"
    assert "next" not in shown(ended("failed"), went_on_as=RUN_ID)
    assert shown(ended("succeeded"), whole)["outputs"] == "home, all of them: /home/ada/out"
    assert shown(running(), part)["outputs"] == "in part home, the newest checkpoint step-000034: /home/ada/out"
    assert "GPU 0" not in shown(ended("failed")) and shown(ended("failed"))["cost"] == "0.29"


def test_a_run_that_never_started_says_why_and_how_it_is_started() -> None:
    why = Refusal("box", "no Python there", "Install it.")
    told = facts(seen(None, launched=False, not_started=why, attempted=False), NOTHING, "")
    assert ("why", "no Python there") in told and ("change", "Install it.") in told
    assert told[-1][1].startswith("it never started: gpurun submit") and told[-1][1].endswith(f"--run {RUN_ID}")


def test_a_run_on_several_boxes_names_each() -> None:
    told = facts(seen(running(), others=(OtherBox("two", address="root@5.6.7.8:22"),)), NOTHING, "")
    assert told[2] == ("", "two  root@5.6.7.8:22")


ODD: list[Any] = [
    None,
    True,
    "x",
    [],
    {},
    -1,
    1 << 200,
    1e308,
    float("nan"),
    0,
    "\x1b[2J\nred",
    {"a": [1]},
    [{}],
    [None],
]


@pytest.mark.parametrize("seed", range(200))
def test_whatever_the_box_says_each_value_is_one_line_and_nothing_raises(seed: int) -> None:
    dice = random.Random(seed)

    def spoiled(value: Any) -> Any:
        if dice.random() < 0.15:
            return dice.choice(ODD)
        if isinstance(value, dict):
            return {name: spoiled(each) for name, each in value.items() if dice.random() < 0.95}
        return [spoiled(each) for each in value] if isinstance(value, list) else value

    told = {kind: spoiled(event) for kind, event in TOLD.items()}
    progress = {kind: event for kind, event in told.items() if isinstance(event, dict)}
    phase = dice.choice(PHASES)
    status = running(
        phase=phase, outcome=dice.choice(OUTCOMES) if phase == "finished" else None, progress=progress,
        started_at=dice.choice([None, 1e9 - 5]), now=dice.choice([None, 1e9]),
    )  # fmt: skip
    for name, value in facts(seen(status), NOTHING, ""):
        assert len(name) < 12 and value and (len(value) < 300 or name == "flag")
    for _, text in figures.gpus(status):
        assert text.isprintable()
