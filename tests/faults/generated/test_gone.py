"""A sweep whose box is gone: ``gpurun resume --all`` at two other boxes, killed at random moments and typed at the same time, starts each
run once. The boxes are real (sshd, supervisors, PID namespaces).
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import wait_until
from tests.support.boxes.mortal_box import MortalBox
from tests.support.cli import Gpurun
from tests.support.trials import trials

PROGRAM = """
import os, time
with open({truth!r}, "a") as file:
    file.write(os.environ["LR"] + "\\n")
while not os.path.exists({go!r}):
    time.sleep(0.05)
"""


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[list[MortalBox]]:
    made = [MortalBox(tmp_path / f"box-{name}") for name in "abc"]
    yield made
    for box in made:
        box.end()


def end_early(client: subprocess.Popen[str], chance: random.Random) -> None:
    time.sleep(chance.uniform(0.0, 3.0))
    client.send_signal(chance.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)))
    client.communicate(timeout=60)


@trials("gone", quick=1, full=30)
def test_ended_anywhere_and_typed_again_for_either_box_each_run_goes_on_once(
    gpurun: Gpurun, job: Any, tmp_path: Path, boxes: list[MortalBox], chance: random.Random
) -> None:
    gone, *others = boxes
    truth, go = tmp_path / "truth", tmp_path / "go"
    truth.touch()
    names = [str(number) for number in range(chance.randint(2, 4))]
    file = job(PROGRAM.format(truth=str(truth), go=str(go)), sweep={"environment.variables.LR": names})
    runs = [run["run_id"] for run in gpurun.json("submit", str(file), "--host", gone.address)["runs"]]
    wait_until(lambda: len(truth.read_text().split()) == len(names))
    gone.die()
    for _ in range(chance.randint(1, 3)):
        words = [["resume", "--all", "--host", chance.choice(others).address] for _ in range(chance.choice((1, 2)))]
        for client in [gpurun.start(*each) for each in words]:
            end_early(client, chance)
    for box in (*others, others[0]):
        gpurun("resume", "--all", "--host", box.address)
    wait_until(lambda: len(truth.read_text().split()) == 2 * len(names))
    for box in others:
        assert gpurun.json("resume", "--all", "--host", box.address)["runs"] == []
    go.touch()
    there = [path.name for box in others if Path(box.paths.runs).exists() for path in Path(box.paths.runs).iterdir()]
    assert sorted(truth.read_text().split()) == sorted(names * 2), "a run was started twice, or never"
    records = {
        record["run_id"]: record
        for record in (json.loads(each.read_text()) for each in (gpurun.home / "runs").glob("*/run.json"))
    }
    assert sorted([*runs, *there]) == sorted(records), "a record too many, or one too few"
    for earlier in runs:
        new = records[records[earlier]["went_on_as"]]
        assert new["launched"] and new["parent"] == earlier and new["submission"] == records[earlier]["submission"]
