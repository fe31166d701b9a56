"""A run goes on on another box: with what was brought home before its own box was killed, and its disk deleted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_pretrain_job import TINY
from tests.e2e.test_pretrain_job import project as project
from tests.support.agent import wait_until
from tests.support.cli import Gpurun
from tests.support.mortal_box import MortalBox


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[MortalBox, MortalBox]]:
    made = MortalBox(tmp_path / "box-a"), MortalBox(tmp_path / "box-b")
    yield made
    for box in made:
        box.end()


def submit(gpurun: Gpurun, file: Path, box: MortalBox, *words: str) -> str:
    run: str = gpurun.json("submit", str(file), "--host", box.address, *words)["runs"][0]["run_id"]
    return run


def events(gpurun: Gpurun, run_id: str, kind: str) -> list[dict[str, Any]]:
    lines = (gpurun.home / "runs" / run_id / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


def losses(gpurun: Gpurun, run_id: str) -> dict[int, float]:
    gpurun("logs", run_id, "-f")
    return {event["step"]: event["loss"] for event in events(gpurun, run_id, "step")}


STEPS = {**TINY, "settings.max_steps": 40, "settings.evaluation.every_steps": 20}


def test_a_recipe_whose_box_died_in_the_middle_trains_on_elsewhere_bit_for_bit(
    gpurun: Gpurun, project: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, other = boxes
    words = [word for key, value in STEPS.items() for word in ("--set", f"{key}={value}")]
    words += ["--set", f"environment.interpreter={sys.executable}", "--set", "outputs=null"]
    moved = submit(gpurun, project, box, *words)
    straight = submit(gpurun, project, other, *words)
    wait_until(lambda: list(Path(box.paths.run(moved).outputs, "checkpoints").glob("step-*/manifest.json")))
    gpurun("fetch", moved)
    seen = gpurun.json("status", moved)["status"]
    box.die()
    assert seen["phase"] == "running", "it had ended before its box was killed"

    told = gpurun("resume", moved, "--host", other.address)
    assert "it moves there" in told.stderr and "goes on from step-" in told.stderr
    new = gpurun.json("list")["runs"][-1]
    assert new["parent"] == moved and new["host"] == other.address
    after, expected = losses(gpurun, new["run_id"]), losses(gpurun, straight)
    assert 0 < len(after) < 40 and after == {step: expected[step] for step in after} and max(after) == 40
    weights = "models/best/model.safetensors"
    first, second = (Path(other.paths.run(each).outputs, weights) for each in (new["run_id"], straight))
    assert first.read_bytes() == second.read_bytes()
