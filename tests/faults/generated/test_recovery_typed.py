"""``gpurun resume --all`` that is killed, interrupted and typed twice at once: each interrupted run goes on once, and the records are true.

The box is real (sshd, supervisors, a PID namespace); clients end at random moments.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from typing import Any

from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.boxes.container import container
from tests.support.cli import Gpurun
from tests.support.trials import trials

PROGRAM = """
import os, pathlib, time
home = pathlib.Path(os.path.expanduser("~"))
with open(home / "truth", "a") as file:
    file.write(os.environ["NAME"] + "\\n")
print("begun", flush=True)
while not (home / "go").exists():
    time.sleep(0.02)
"""


def records(gpurun: Gpurun) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (gpurun.home / "runs").glob("*/run.json")]


def end_early(client: subprocess.Popen[str], chance: random.Random) -> None:
    time.sleep(chance.uniform(0.0, 2.5))
    client.send_signal(chance.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)))
    client.communicate(timeout=60)


@trials("typed", quick=1, full=20)
def test_ended_anywhere_and_typed_again_it_starts_each_once(
    gpurun: Gpurun, box: Box, job: Any, chance: random.Random
) -> None:
    address, names = box.address(), [f"n{number}" for number in range(chance.randint(2, 5))]
    files = [str(job(PROGRAM, name=name, environment={"variables": {"NAME": name}})) for name in names]
    again = ["resume", "--all", "--host", address]
    with container(box):
        runs = {run["job_name"]: run["run_id"] for run in gpurun.json("submit", *files, "--host", address)["runs"]}
        wait_until(
            lambda: (box.home / "truth").exists() and len((box.home / "truth").read_text().split()) == len(names)
        )
    with container(box):
        for _ in range(chance.randint(1, 3)):
            clients = [gpurun.start(*again) for _ in range(chance.choice((1, 1, 2)))]
            for client in clients:
                end_early(client, chance)
        gpurun(*again)
        (box.home / "go").touch()
        wait_until(lambda: len((box.home / "truth").read_text().split()) == 2 * len(names))
        said = gpurun.json(*again)["runs"]
        there = {run["run_id"]: run["status"] for run in gpurun.json("list", "--host", address)["runs"]}
        wait_until(lambda: len((box.home / "truth").read_text().split()) == 2 * len(names))
    assert sorted((box.home / "truth").read_text().split()) == sorted(names * 2)
    successor = {run["run_id"]: run["successor"] for run in said}
    assert {run["what"] for run in said} == {"went on"} and set(successor) == set(runs.values())
    known = {record["run_id"]: record for record in records(gpurun)}
    assert set(known) == set(runs.values()) | set(successor.values()) == set(there), "a record too many, or one too few"
    for earlier, new in successor.items():
        assert known[new]["launched"] and known[new]["parent"] == earlier and known[earlier]["went_on_as"] == new
