"""One torchrun job on two boxes, each in a network namespace of its own with its own sshd, address, disk and process ids."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.boxes.namespaced import NamespacedBox
from tests.support.boxes.namespaced import pair as pair
from tests.support.boxes.namespaced import rack as rack
from tests.support.cli import Gpurun

# Sums a number over all ranks in each step, and saves it with each; goes on from what it finds. Waits at the step in WAIT_AT.
TRAIN = """
import os, pathlib, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
saved = pathlib.Path("models/state.pt")
state = torch.load(saved) if "GPURUN_RESUME" in os.environ else {"step": 0, "sum": 0.0}
print(f"rank {rank} of {world} from step {state['step']}", flush=True)
while state["step"] < 6:
    number = torch.tensor([float(state["step"] + 1)]) / world
    dist.all_reduce(number)
    state = {"step": state["step"] + 1, "sum": state["sum"] + number.item()}
    if rank == 0:
        torch.save(state, "models/new.pt")
        os.replace("models/new.pt", saved)
        print(f"step {state['step']} sum {state['sum']:g}", flush=True)
    while state["step"] == int(os.environ["WAIT_AT"]) and "GPURUN_RESUME" not in os.environ:
        time.sleep(0.1)
        dist.barrier()
dist.destroy_process_group()
"""
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "1"]


@pytest.fixture
def training(job: Any) -> Any:
    def write(wait_at: int = 0, program: str = TRAIN, **fields: Any) -> str:
        file: Path = job(program, name="several", **{
            "command": [sys.executable, *TORCHRUN, "main.py"],
            "resources": {"gpus": 0, "boxes": 2},
            "environment": {"interpreter": sys.executable, "variables": {"WAIT_AT": str(wait_at)}},
            **fields,
        })  # fmt: skip
        return str(file)

    return write


def both(pair: list[NamespacedBox]) -> list[str]:
    return [word for box in pair for word in ("--host", box.address)]


def runs_of(box: NamespacedBox) -> Path:
    return box.on_disk("/root/.gpurun-box/runs")


def wait_for(gpurun: Gpurun, run_id: str, line: str) -> None:
    following = gpurun.start("logs", run_id, "-f")
    assert following.stdout is not None
    while line not in (said := following.stdout.readline()):
        assert said, following.communicate()[1]
    following.terminate()
    following.communicate(timeout=20)


def test_a_run_on_two_boxes_has_one_id_one_log_and_one_status(
    gpurun: Gpurun, training: Any, pair: list[NamespacedBox]
) -> None:
    submitted = gpurun("submit", training(), *both(pair))
    assert "network between the boxes: ok" in submitted.stderr and "eth1" in submitted.stderr
    (run,) = gpurun.json("list")["runs"]
    run_id = run["run_id"]
    log = gpurun("logs", run_id, "-f").stdout
    assert "rank 0 of 2 from step 0" in log and "step 6 sum 21" in log
    assert gpurun.json("status", run_id)["status"]["outcome"] == "succeeded"
    assert [path.name for box in pair for path in runs_of(box).iterdir()] == [run_id, run_id]
    gpurun("fetch", run_id)
    assert (gpurun.home / "runs" / run_id / "outputs" / "models" / "state.pt").is_file()


def test_a_stop_ends_it_on_both_and_it_goes_on_on_both(
    gpurun: Gpurun, training: Any, pair: list[NamespacedBox]
) -> None:
    run_id = gpurun.json("submit", training(wait_at=3), *both(pair))["runs"][0]["run_id"]
    wait_for(gpurun, run_id, "step 3 ")
    gpurun("stop", run_id, "--grace", "5")
    for box in pair:
        (run,) = gpurun.json("list", "--host", box.address)["runs"]
        assert (run["status"]["outcome"], run["status"]["orphaned"]) == ("cancelled", False)
    again = gpurun.json("resume", run_id)
    assert len(again["other_hosts"]) == 1
    assert "rank 0 of 2 from step 3" in (log := gpurun("logs", again["run_id"], "-f").stdout) and "step 6 sum 21" in log


@pytest.mark.parametrize("silently", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_box_is_killed_and_the_run_goes_on_on_the_one_that_is_left(
    gpurun: Gpurun, training: Any, pair: list[NamespacedBox], silently: bool
) -> None:
    """Where the box falls silent, no connection ends: only the supervisors notice it, after 30 s."""
    first, second = pair
    run_id = gpurun.json("submit", training(wait_at=3), *both(pair))["runs"][0]["run_id"]
    wait_for(gpurun, run_id, "step 3 ")
    second.die(silently=silently)
    gpurun("logs", run_id, "-f", check=10)
    status = gpurun.json("status", run_id)["status"]
    assert (status["outcome"], status["cause"]) == ("failed", "box_lost")
    assert "node rank 1" in status["evidence"] and "gpurun resume" in status["advice"]
    again = gpurun.json("resume", run_id, "--host", first.address)
    assert again["other_hosts"] == []
    assert "rank 0 of 1 from step 3" in (log := gpurun("logs", again["run_id"], "-f").stdout) and "step 6 sum 21" in log


def test_boxes_behind_a_nat_are_refused_before_anything_is_pushed(
    gpurun: Gpurun, training: Any, pair: list[NamespacedBox]
) -> None:
    pair[1].refuse_strangers()
    refused = gpurun("submit", training(), *both(pair), check=3)
    assert "10.88.0.2 (eth1) no answer within 3 s" in refused.stderr and "10.88.0.1 (eth1) reached in" in refused.stderr
    assert "Nothing was pushed" in refused.stderr and "push" not in refused.stderr.split("Nothing was pushed")[0]
    for box in pair:
        sent = [path for name in ("runs", "incoming") for path in box.on_disk(f"/root/.gpurun-box/{name}").rglob("*")]
        assert not [path for path in sent if path.is_file()]
    (finding,) = [
        each
        for each in gpurun.json("check", training(), *both(pair), check=3)["hosts"][0]["check"]["findings"]
        if each["what"] == "network"
    ]
    assert finding["verdict"] == "fail" and "no answer within 3 s" in finding["said"]


def test_one_box_fails_and_its_log_is_shown(gpurun: Gpurun, training: Any, pair: list[NamespacedBox]) -> None:
    fails = 'if rank == 1: raise SystemExit("CUDA out of memory on the second")\n'
    program = TRAIN.replace("while state", fails + "while state", 1)
    run_id = gpurun.json("submit", training(program=program), *both(pair))["runs"][0]["run_id"]
    failed = gpurun("logs", run_id, "-f", check=10)
    assert "CUDA out of memory on the second" in failed.stderr and "(node rank 1), the last" in failed.stderr
    assert gpurun.json("status", run_id)["status"]["cause"] == "cuda_oom"
    assert "on the second" in (gpurun.home / "runs" / run_id / "boxes" / "1.log").read_text()


def test_as_many_hosts_as_boxes(gpurun: Gpurun, training: Any) -> None:
    refused = gpurun("submit", training(), "--host", "a@example.invalid", check=2)
    assert "runs on 2 boxes (resources.boxes), and --host gives 1" in refused.stderr
