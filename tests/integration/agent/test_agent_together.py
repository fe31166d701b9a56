"""Two supervisors of one run, as on two boxes: what ends the payload of one ends that of the other, and both say why."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import BoxPaths
from tests.support.agent import Session, launch, log_of, run_id, running_agent, status, until_finished, wait_until

WAIT = ["sleep", "1000"]
OOM = ["sh", "-c", "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate'; exit 1"]
LOST_PEER = ["sh", "-c", "sleep 1; echo 'RuntimeError: Connection reset by peer'; exit 1"]


class Pair:
    """Two agents of one machine; each has its own root, and the run its own id there, since processes are found by it."""

    def __init__(self, agents: list[Session]) -> None:
        self.agents = agents
        self.runs = [run_id("first"), run_id("second")]

    def launch(self, *commands: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = port = probe.getsockname()[1]
        boxes = {
            "size": 2,
            "address": "127.0.0.1",
            "rendezvous": 29500,
            "supervisors": port,
            "interface": "eth1",
            "word": "w",
        }
        for rank, command in enumerate(commands):
            launch(self.agents[rank], command, self.runs[rank], boxes={**boxes, "rank": rank})

    def joined(self) -> bool:
        """Whether the supervisors have a connection (state 1 in /proc/net/tcp)."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(row[1].endswith(f":{self.port:04X}") and row[3] == "01" for row in rows)

    def ends(self) -> list[dict[str, Any]]:
        return [until_finished(*pair) for pair in zip(self.agents, self.runs, strict=True)]

    def owner(self, rank: int) -> dict[str, Any]:
        return read_json(BoxPaths(self.agents[rank].root).run(self.runs[rank]).owner) or {}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
    with running_agent(homes[0]) as first, running_agent(homes[1]) as second:
        made = Pair([first, second])
        yield made
        for rank in (0, 1):
            if not Path(BoxPaths(made.agents[rank].root).run(made.runs[rank]).folder).exists():
                continue  # it was refused
            made.agents[rank].call("stop", {"run_id": made.runs[rank], "grace": 0})


def test_a_payload_is_told_where_the_others_are(pair: Pair) -> None:
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    pair.launch(["python3", "-c", show], ["python3", "-c", show])
    assert [end["outcome"] for end in pair.ends()] == ["succeeded", "succeeded"]
    told = json.loads(log_of(pair.agents[1], pair.runs[1]))
    torchrun = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "29500"}
    assert torchrun.items() <= told.items()
    assert (told["NCCL_SOCKET_IFNAME"], told["GLOO_SOCKET_IFNAME"]) == ("=eth1", "eth1")


@pytest.mark.parametrize("failing", [0, 1])
def test_one_box_fails_and_the_other_is_ended_and_names_the_cause(pair: Pair, failing: int) -> None:
    commands = [WAIT, WAIT]
    commands[failing] = OOM
    pair.launch(*commands)
    ends = pair.ends()
    assert ends[failing]["cause"] == "cuda_oom" and ends[failing]["exit"]["number"] == 1
    other = ends[1 - failing]
    assert (other["outcome"], other["cause"], other["exit"]["kind"]) == ("failed", "cuda_oom", "box")
    assert f"on the box of node rank {failing}: torch.OutOfMemoryError" in other["evidence"]


def test_a_box_that_only_lost_the_other_names_the_others_cause(pair: Pair) -> None:
    pair.launch(LOST_PEER, OOM)
    first = pair.ends()[0]
    assert first["cause"] == "cuda_oom" and "on the box of node rank 1: torch.Out" in first["evidence"]


def test_a_stop_of_one_box_is_a_stop_of_both(pair: Pair) -> None:
    pair.launch(WAIT, WAIT)
    wait_until(lambda: all(status(*each)["phase"] == "running" for each in zip(pair.agents, pair.runs, strict=True)))
    pair.agents[1].call("stop", {"run_id": pair.runs[1], "grace": 5})
    assert [end["outcome"] for end in pair.ends()] == ["cancelled", "cancelled"]


def test_a_box_that_fails_after_the_other_has_vanished_says_so(pair: Pair) -> None:
    program = "import os, time\nwhile not os.path.exists('../go'): time.sleep(0.05)\nraise SystemExit('Connection reset by peer')"
    pair.launch(["python3", "-c", program], WAIT)
    wait_until(pair.joined)
    os.kill(pair.owner(1)["pid"], signal.SIGKILL)
    (Path(BoxPaths(pair.agents[0].root).run(pair.runs[0]).folder) / "go").touch()
    first = until_finished(pair.agents[0], pair.runs[0])
    assert (first["cause"], first["evidence"]) == ("box_lost", "the box of node rank 1 is not heard of any more")
    assert "gpurun resume" in first["advice"]


def test_a_port_that_is_taken_is_an_error_of_the_launch(pair: Pair) -> None:
    from runner.domain.errors import GpurunError

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        boxes = {"size": 2, "rank": 0, "address": "127.0.0.1", "rendezvous": 1, "supervisors": taken.getsockname()[1]}
        with pytest.raises(GpurunError, match="ddress already in use"):
            launch(pair.agents[0], WAIT, pair.runs[0], boxes=boxes)
