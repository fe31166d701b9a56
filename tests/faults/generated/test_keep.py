"""The largest loss at any moment: a box that is killed with its disk while ``gpurun keep`` stays takes at most the work of one checkpoint
interval and 30 seconds with it, and what is home is whole.

The box is an sshd with a home folder of its own; killed are the sshd, all its sessions, the run and its supervisor, and the folder is gone.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.boxes.rented import Rented, kill
from tests.support.checkpointing import PROGRAM, command, home, unverified
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.trials import trials

ALLOWED = 30.0  # seconds beyond one interval


@contextmanager
def keeping(gpurun: Gpurun, run_id: str, rule: str) -> Iterator[None]:
    process = gpurun.start("keep", run_id, "--checkpoints", rule)
    try:
        yield
        assert process.poll() is None, "it waits for its box for ever"
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (130, -2) and "Traceback" not in said, said


@trials("keep", quick=2, full=20)
def test_a_killed_box_takes_at_most_one_interval_and_half_a_minute_with_it(
    seed: str, chance: random.Random, gpurun: Gpurun, job: Any, figure: Record, tmp_path: Path
) -> None:
    box = Rented(tmp_path / "box")
    how = ["recipe", "recipe", "trainer", "file"][int(seed.rpartition("-")[2]) % 4]  # the first two take the least time
    every = chance.uniform(1, 3) if how == "recipe" else chance.uniform(15, 20)
    rule = chance.choice(["all", "latest:1", "latest:2,best"])
    file = job(PROGRAM, command=command(how, every), outputs=["checkpoints"])
    run = gpurun.json("submit", str(file), "--host", box.address)["runs"][0]
    run_id: str = run["run_id"]
    outputs = gpurun.home / "runs" / run_id / "outputs"
    with keeping(gpurun, run_id, rule):
        time.sleep(chance.uniform(0.5, 4) * every)  # the moment is what is random
        killed_at = kill(box, run_id)
        here = home(outputs)
    saved_at = here[-1].at if here else run["status"]["started_at"]
    assert not here or unverified(outputs) == []
    if rule == "latest:1":
        assert len(here) <= 2, "the one before it goes once the newest is home"
    beyond = max(0.0, killed_at - saved_at - every)
    figure(f"work lost beyond one checkpoint interval by a killed box, {how}", beyond, ALLOWED, "s")
