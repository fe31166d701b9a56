"""One run on several nodes of a real Slurm: srun starts the ranks, torchrun finds its peers, and all end together."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.agent import Session, launch, log_of, run_id, running_agent, status, until_finished, wait_until
from tests.support.boxes.slurm import Cluster
from tests.support.boxes.slurm import cluster as cluster

pytestmark = pytest.mark.stand_in

REDUCE = """
import os, signal, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
print("rank", dist.get_rank(), "on", os.uname().nodename, "of", dist.get_world_size(), "sum", total.item(), flush=True)
"""
WAIT = """
import os, signal, sys, time
def save(*_):
    print("saved on", os.uname().nodename, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("waits on", os.uname().nodename, os.environ["NODE_RANK"], os.environ["HF_TOKEN"][:3], flush=True)
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def agent(cluster: Cluster) -> Iterator[Session]:
    """An agent on the login node, its home on the file system that the nodes share."""
    home = cluster.folder / run_id("home")
    home.mkdir()
    with running_agent(home, **cluster.environment) as started:
        yield started


def submit(agent: Session, command: "list[str]", **given: Any) -> str:
    run = run_id()
    launch(agent, command, run, slurm={"nodes": 2}, gpus=1, **given)
    return run


def test_torchrun_finds_its_peers_on_both_nodes(agent: Session) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--no-python"]
    run = submit(agent, [*words, sys.executable, "-c", REDUCE], variables={"OMP_NUM_THREADS": "1"})
    ended = until_finished(agent, run)
    log = log_of(agent, run).decode()
    assert ended["outcome"] == "succeeded", log
    lines = sorted(line for line in log.splitlines() if line.startswith("rank "))
    assert [(line.split()[1], line.split()[5:]) for line in lines] == [(n, ["2", "sum", "3.0"]) for n in "01"], log
    assert {line.split()[3] for line in lines} == {"n1", "n2"}


def test_a_stop_reaches_every_node(agent: Session) -> None:
    run = submit(agent, [sys.executable, "-c", WAIT], secrets={"HF_TOKEN": "hf_of_this_test"})
    wait_until(lambda: log_of(agent, run, until_end=False).count(b"waits on") == 2)
    told = agent.call("stop", {"run_id": run})["status"]
    assert (told["outcome"], told["cause"]) == ("cancelled", "stopped")
    log = log_of(agent, run).decode()
    for name, rank in (("n1", "0"), ("n2", "1")):
        assert f"waits on {name} {rank} hf_" in log and f"saved on {name}" in log


def test_all_end_where_one_fails(agent: Session) -> None:
    fail = "import os, sys, time; os.environ['NODE_RANK'] == '1' and sys.exit(5); time.sleep(600)"
    run = submit(agent, [sys.executable, "-c", fail])
    ended = until_finished(agent, run)
    assert ended["outcome"] == "failed" and status(agent, run)["exit"]["number"] in (5, 143)
