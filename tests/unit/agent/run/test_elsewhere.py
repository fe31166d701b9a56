"""A run that another box has, which shares the network volume: its processes cannot be seen here, only that its files change."""

import os
import time

import pytest

from remote_payload.agent.box import provider
from remote_payload.agent.box.provider import Provider
from remote_payload.agent.run import alive, owner, slot
from remote_payload.agent.run.owner import Owner
from remote_payload.agent.run.queue import allotment
from remote_payload.agent.run.queue.allotment import Allotment
from remote_payload.agent.run.state import status_of
from remote_payload.agent.verbs.stop import stop
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request

RUN = "x-20260102-142030-7f3a"


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(provider, "read_provider", lambda: Provider("runpod", "here"))
    return BoxPaths(str(tmp_path / ".gpurun-box"))


def make(paths, box_id, quiet=0.0):
    """A run of the box ``box_id`` that wrote to its files ``quiet`` seconds ago, under another kernel."""
    run = paths.run(RUN)
    os.makedirs(run.folder)
    with open(run.events, "w") as file:
        file.write("{}\n")
    owner.write(run, Owner(7, 100, "another-kernel", 50, box_id=box_id))
    for path in (run.events, run.owner):
        os.utime(path, (time.time() - quiet,) * 2)
    return run


@pytest.mark.parametrize(
    ("box_id", "quiet", "expected"),
    [
        ("there", 0.0, ("running", None)),
        ("there", 100.0, ("running", None)),
        ("there", 200.0, ("finished", "interrupted")),
        ("here", 0.0, ("finished", "interrupted")),  # this box, before it was restarted
        (None, 0.0, ("finished", "interrupted")),  # an older gpurun, or no known provider
    ],
)
def test_it_lives_as_long_as_its_files_change(paths, box_id, quiet, expected):
    run = make(paths, box_id, quiet)
    status = status_of(run)
    assert (status["phase"], status["outcome"]) == expected
    assert alive.is_supervised(run) == (expected[0] == "running")


def test_its_end_is_read_from_its_files(paths):
    run = make(paths, "there")
    slot.write(run, ExitRecord("exit", 0, time.time()), slot.allocate(run))
    assert status_of(run)["outcome"] == "succeeded"


def test_it_is_not_stopped_from_here(paths):
    run = make(paths, "there")
    with pytest.raises(AgentError, match="another box"):
        stop(Request({"run_id": RUN, "grace": 0}, paths, lambda frame: None, 1))
    assert slot.read(run) is None and status_of(run)["phase"] == "running"


def test_nobody_here_waits_behind_it_for_a_gpu(paths):
    run = make(paths, "there")
    allotment.write(Allotment(run, 1, 0, ()))
    assert allotment.waiting(paths) == []


def test_a_run_that_waits_shows_that_it_lives(paths):
    run = make(paths, "there", quiet=1000.0)
    owner.show_sign_of_life(run)
    assert alive.is_supervised(run)
