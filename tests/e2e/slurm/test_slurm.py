"""Runs on a real Slurm, from a login node over SSH: the cluster is the test's own, its GPUs are device files that compute nothing."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.boxes.slurm import GPUS, NODES, OTHER_USER, WITHOUT_SACCT, Cluster, login_node
from tests.support.boxes.slurm import cluster as cluster
from tests.support.cli import Gpurun
from tests.support.trajectory import PROGRAM, at_the_same_time, lives, straight

pytestmark = pytest.mark.stand_in

SECRET = "s3cret-of-this-machine"


@pytest.fixture
def login(box: Box, cluster: Cluster) -> Iterator[str]:
    """What is typed after ``--host``. Without ``sacct``, which no run needs."""
    with login_node(box, cluster, WITHOUT_SACCT) as address:
        yield address


def write(job: Any, box: Box, name: str = "it", *, steps: int = 20, hold: int = 0, **fields: Any) -> Path:
    variables = {"TRUTH": str(box.home / "truth"), "STEPS": str(steps), "HOLD": str(hold), "NAME": name}
    more = {"resources": {"gpus": 1}, "environment": {"variables": variables}, **fields}
    path: Path = job(PROGRAM, name=name, **more)
    return path


def submit(gpurun: Gpurun, address: str, *files: Path) -> list[str]:
    said = gpurun.json("submit", *map(str, files), "--host", address, "--engine", "slurm")
    return [run["run_id"] for run in said["runs"]]


def status(gpurun: Gpurun, run: str, check: int | None = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gpurun("status", run, "--json", check=check).stdout)["status"]
    return found


def job_of(cluster: Cluster, run: str) -> str:
    return cluster.ask("squeue", "-h", "-t", "all", "-n", run, "-o", "%A")


def reached(box: Box, step: int, lived: int = 1) -> bool:
    """Whether the payload's process number ``lived`` is at that step."""
    seen = lives(box.home / "truth")
    return len(seen) >= lived and step in seen[lived - 1].steps


def test_a_run_waits_behind_another_users_job_then_trains_and_comes_home(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any
) -> None:
    everything = ("--gpus", str(GPUS * len(NODES)), "--nodes", str(len(NODES)))
    words = ("sbatch", "--parsable", "-D", "/", "-o", "/dev/null", *everything, "--wrap", "sleep 600")
    theirs = cluster.ask(*words, user=OTHER_USER)
    wait_until(lambda: cluster.job_state(theirs) == "RUNNING")
    gpurun.env["KEY"] = SECRET
    (run,) = submit(gpurun, login, write(job, box, secrets=["KEY"]))
    # Slurm gives its reason a moment after the job came: until then it says "None".
    wait_until(lambda: "Resources" in status(gpurun, run)["evidence"])
    assert status(gpurun, run)["phase"] == "prepared"
    assert "Resources" in gpurun("status", run).stdout and not lives(box.home / "truth")
    following = gpurun.start("logs", "-f", run)
    assert cluster.job_state(theirs) == "RUNNING", "another user's job is nobody's to end"
    cluster.ask("scancel", theirs)
    out, err = following.communicate(timeout=120)
    assert following.returncode == 0, err
    assert [line for line in out.splitlines() if line.startswith("step")] == [f"step {n}" for n in range(1, 21)]
    ended = status(gpurun, run)
    assert (ended["phase"], ended["outcome"]) == ("finished", "succeeded")
    (life,) = lives(box.home / "truth")
    assert life.steps == straight(20) and life.gpus == "0" and life.node in NODES and life.key == SECRET
    home = Path(gpurun.json("fetch", run)["into"])
    assert json.loads((home / "models" / "step-000020" / "state.json").read_text())["step"] == 20
    assert gpurun.json("done", run)["safe_to_destroy"]
    for folder, _, names in itertools.chain(os.walk(gpurun.box_root), os.walk(gpurun.home / "runs")):
        for path in (Path(folder, name) for name in names):
            assert path.is_symlink() or SECRET.encode() not in path.read_bytes(), path


def test_twenty_runs_are_twenty_jobs_and_no_gpu_has_two_of_them(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any
) -> None:
    file = write(job, box, sweep={"environment.variables.NAME": [f"r{number:02}" for number in range(20)]})
    runs = submit(gpurun, login, file)
    assert len({job_of(cluster, run) for run in runs} - {""}) == 20
    wait_until(lambda: cluster.ask("squeue", "-h") == "", limit=120)
    listed = {run["run_id"]: run["status"]["outcome"] for run in gpurun.json("list", "--host", login)["runs"]}
    assert listed == dict.fromkeys(runs, "succeeded")
    seen = lives(box.home / "truth")
    assert sorted(life.name for life in seen) == [f"r{number:02}" for number in range(20)]
    assert all(life.ended and life.steps == straight(20) for life in seen)
    for one, other in itertools.combinations(seen, 2):
        assert (one.node, one.gpus) != (other.node, other.gpus) or not at_the_same_time(one, other), (one, other)


def test_stop_ends_one_that_waits_and_one_that_trains_which_saves_before(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any
) -> None:
    trains = write(job, box, "trains", hold=3)
    waits = write(job, box, "waits", slurm={"nodelist": "n1"}, resources={"gpus": GPUS})
    (first,) = submit(gpurun, login, trains)
    wait_until(lambda: reached(box, 3))
    node = lives(box.home / "truth")[0].node
    waits = write(job, box, "waits", slurm={"nodelist": node}, resources={"gpus": GPUS})
    (second,) = submit(gpurun, login, waits)
    assert status(gpurun, second)["phase"] == "prepared"
    assert gpurun.json("stop", second)["status"]["outcome"] == "cancelled"
    assert cluster.job_state(job_of(cluster, second)) in ("CANCELLED", "")
    assert gpurun.json("stop", first)["status"]["outcome"] == "cancelled"
    assert "told to end" in gpurun("logs", first).stdout
    assert [life.name for life in lives(box.home / "truth")] == ["trains"]
    wait_until(lambda: cluster.ask("squeue", "-h") == "")


def test_a_job_that_somebody_cancels_is_told_as_such(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any
) -> None:
    (run,) = submit(gpurun, login, write(job, box, hold=3))
    wait_until(lambda: reached(box, 3))
    cluster.ask("scancel", job_of(cluster, run))
    wait_until(lambda: status(gpurun, run, check=None)["phase"] == "finished")
    ended = status(gpurun, run, check=None)
    assert (ended["outcome"], ended["cause"]) == ("cancelled", "scancel"), ended


def test_a_run_outlives_the_death_of_its_slurmd(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any
) -> None:
    (run,) = submit(gpurun, login, write(job, box, hold=3))
    wait_until(lambda: reached(box, 3))
    node = cluster.nodes[lives(box.home / "truth")[0].node]
    node.kill_daemon()
    assert status(gpurun, run)["phase"] == "running"
    (box.home / "go").touch()
    gpurun("logs", "-f", run)
    assert status(gpurun, run)["outcome"] == "succeeded"
    node.start_daemon()
    cluster.await_idle()


def test_a_program_ends_with_its_killed_supervisor_since_slurm_gives_its_gpu_to_the_next(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any
) -> None:
    (run,) = submit(gpurun, login, write(job, box, hold=3))
    wait_until(lambda: reached(box, 3))
    number = job_of(cluster, run)
    cluster.ask("scancel", "--batch", "--signal=KILL", number)
    wait_until(lambda: cluster.job_state(number) == "FAILED")
    node = cluster.nodes[lives(box.home / "truth")[0].node]
    wait_until(lambda: not any("main.py" in processes.command(each.pid) for each in node.processes()), limit=10)
    age_heartbeat(gpurun, run)
    ended = status(gpurun, run, check=None)
    assert (ended["outcome"], ended["cause"]) == ("lost", "vanished"), ended


@pytest.mark.parametrize("requeue", [False, True])
def test_a_node_that_fails_takes_its_run_along_unless_slurm_may_start_it_again(
    gpurun: Gpurun, cluster: Cluster, box: Box, login: str, job: Any, requeue: bool
) -> None:
    (run,) = submit(gpurun, login, write(job, box, hold=8, slurm={"requeue": requeue}))
    wait_until(lambda: reached(box, 8))
    node = lives(box.home / "truth")[0].node
    cluster.fail_node(node)
    age_heartbeat(gpurun, run)
    if requeue:
        assert status(gpurun, run)["phase"] in ("prepared", "running")
        (box.home / "go").touch()
        cluster.begin_now(job_of(cluster, run))
        gpurun("logs", "-f", run)
        first, second = lives(box.home / "truth")
        assert (second.resumed, second.first) == ("models/step-000005", 5) and second.node != first.node
        assert {**first.steps, **second.steps} == straight(20)
        assert status(gpurun, run)["outcome"] == "succeeded"
    else:
        ended = status(gpurun, run, check=None)
        assert (ended["outcome"], ended["cause"]) == ("interrupted", "node_failed"), ended
    cluster.start_node(node)
    cluster.await_idle()


def age_heartbeat(gpurun: Gpurun, run: str, seconds: int = 120) -> None:
    """As if that much time had passed since the supervisor's last sign of life."""
    path = gpurun.box_run(run) / "slurm" / "heartbeat"
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


def test_check_says_that_the_host_has_slurm_and_what_is_wrong_in_the_job_file(
    gpurun: Gpurun, box: Box, login: str, job: Any
) -> None:
    said = gpurun("check", str(write(job, box)), "--host", login, "--engine", "slurm")
    assert "Slurm" in said.stdout + said.stderr
    wrong = write(job, box, "wrong", slurm={"partitoin": "main"})
    refused = gpurun("check", str(wrong), "--host", login, "--engine", "slurm", check=2)
    assert "partitoin" in refused.stderr and "partition" in refused.stderr
    absent = write(job, box, "absent", slurm={"partition": "nowhere"})
    refused = gpurun("submit", str(absent), "--host", login, "--engine", "slurm", check=None)
    assert refused.returncode != 0 and "nowhere" in refused.stderr
