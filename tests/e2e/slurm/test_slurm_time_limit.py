"""A Slurm job's time limit: its program saves before it, and the run goes on where it was, with the same numbers as without a break."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.slurm.test_slurm import job_of, status, submit, write
from tests.e2e.slurm.test_slurm import login as login
from tests.e2e.test_pretrain_job import TINY
from tests.e2e.test_pretrain_job import project as project
from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.boxes.slurm import Cluster
from tests.support.boxes.slurm import cluster as cluster
from tests.support.cli import Gpurun
from tests.support.trajectory import lives, straight

pytestmark = pytest.mark.stand_in


def test_slurms_own_signal_before_the_limit_saves_and_ends_or_requeues(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any
) -> None:
    """The shortest limit that Slurm has, a minute; it looks every half minute for jobs to be told."""
    ends, again = (
        write(job, box, name, hold=8, time_limit="1m", slurm={"requeue": requeue})
        for name, requeue in (("ends", False), ("again", True))
    )
    first, second = submit(gpurun, login, ends, again)
    wait_until(lambda: len(lives(box.home / "truth")) == 2)
    number = job_of(cluster, second)
    cluster.begin_now(number)
    (box.home / "go").touch()
    gpurun("logs", "-f", second)
    assert job_of(cluster, second) == number and status(gpurun, second)["outcome"] == "succeeded"
    log = gpurun("logs", second).stdout
    assert [line for line in log.splitlines() if line.startswith("step")] == [f"step {n}" for n in range(1, 21)]
    begun = {(life.name, life.first): life for life in lives(box.home / "truth")}
    assert begun.keys() == {("ends", 0), ("again", 0), ("again", 8)}
    assert begun["again", 8].resumed == "models/step-000008"
    assert {**begun["again", 0].steps, **begun["again", 8].steps} == straight(20)

    gpurun("logs", "-f", first, check=None)
    ended = status(gpurun, first, check=None)
    told = gpurun.box_run(first) / "supervisor.log"
    assert (ended["outcome"], ended["cause"]) == ("timed_out", "time_limit"), (ended, told.read_text(), cluster.logs())
    new = gpurun.json("resume", first)
    assert new["run_id"] != first
    gpurun("logs", "-f", new["run_id"])
    assert status(gpurun, new["run_id"])["outcome"] == "succeeded"
    last = lives(box.home / "truth")[-1]
    assert (last.name, last.first) == ("ends", 8) and {**begun["ends", 0].steps, **last.steps} == straight(20)


def events(gpurun: Gpurun, run_id: str, kind: str) -> list[dict[str, Any]]:
    lines = (gpurun.box_run(run_id) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


@pytest.mark.slow  # two trainings of a recipe at once
def test_a_recipe_that_is_told_to_end_trains_on_in_the_same_run_bit_for_bit_and_passes_the_smoke_test(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, project: Path
) -> None:
    steps = {**TINY, "settings.max_steps": 60, "settings.evaluation.every_steps": 30}
    words = [word for key, value in steps.items() for word in ("--set", f"{key}={value}")]
    words += ["--set", f"environment.interpreter={sys.executable}", "--set", "outputs=null", "--set", "time_limit=10m"]
    submitted = ("submit", str(project), "--host", login, "--engine", "slurm", *words)
    # Both at once: that with requeue is told to end, the other trains through.
    told = gpurun.json(*submitted, "--set", "slurm={requeue: true}")["runs"][0]["run_id"]
    through = gpurun.json(*submitted)["runs"][0]["run_id"]
    path = gpurun.box_run(told) / "events.jsonl"
    wait_until(lambda: path.exists() and events(gpurun, told, "step"))
    number = job_of(cluster, told)
    # What Slurm sends before the limit, which is made near for this start alone.
    cluster.ask("scontrol", "update", f"jobid={number}", "timelimit=4")
    cluster.ask("scancel", "--batch", "--signal=TERM", number)
    cluster.begin_now(number)
    cluster.ask("scontrol", "update", f"jobid={number}", "timelimit=10")
    for run in (told, through):
        gpurun("logs", "-f", run)
        assert status(gpurun, run)["outcome"] == "succeeded"
    (flag,) = (event for event in events(gpurun, told, "flag") if event["name"] == "requeued")
    before = [event for event in events(gpurun, told, "step") if event["t"] < flag["t"]]
    assert 0 < len(before) < 60, "it was over before it was told"
    part, whole = ({event["step"]: event["loss"] for event in events(gpurun, run, "step")} for run in (told, through))
    assert len(events(gpurun, told, "step")) == 60 and part == whole
    home = Path(gpurun.json("fetch", told)["into"])
    weights = "models/best/model.safetensors"
    assert (home / weights).read_bytes() == (gpurun.box_run(through) / "outputs" / weights).read_bytes()
    assert gpurun.json("smoke-test", told, "--device", "cpu")["passed"]
