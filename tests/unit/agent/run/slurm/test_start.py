"""The start of a payload that fails on a compute node: nobody comes to that node's memory afterwards."""

import os

import pytest

from remote_payload.agent.box import daemon
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.run.slurm import attempt, batch, sealed
from remote_payload.agent.run.slurm.files import Attempt
from remote_payload.agent.wire.paths import volatile_folder
from tests.support.agent import run_id


@pytest.mark.stand_in
def test_a_start_that_fails_leaves_no_secret_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """stand_in: Slurm, and this process is no daemon."""
    run, seen = run_id(), []
    monkeypatch.setattr(batch, "read_launch", lambda run: LaunchFile(("true",), {}))
    monkeypatch.setattr(attempt, "this_attempt", lambda: Attempt(7, 0, "n1"))
    monkeypatch.setattr(attempt, "take_over", lambda run, mine: True)
    monkeypatch.setattr(daemon, "guard", lambda blocked: None)
    monkeypatch.setattr(sealed, "unseal", lambda run, key: {"HF_TOKEN": "hf_of_this_test"})

    def start(self) -> None:
        seen.extend(os.listdir(volatile_folder(run)))
        raise OSError("the disk is full")

    monkeypatch.setattr(batch.BatchSupervisor, "start", start)
    with pytest.raises(OSError, match="the disk is full"):
        batch.batch(str(tmp_path), run)
    assert seen == ["hf_token"]
    assert not os.path.isdir(volatile_folder(run)) or os.listdir(volatile_folder(run)) == []
