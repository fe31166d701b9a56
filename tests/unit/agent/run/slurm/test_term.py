"""What a TERM means that the batch step gets: the end of the time limit, or that Slurm ends the job."""

import os
import time

import pytest

from remote_payload.agent.box import slurm
from remote_payload.agent.box.slurm import GOING, Job
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.run.slurm import batch, files
from remote_payload.agent.run.slurm.files import Attempt
from remote_payload.agent.run.slurm.look import TOLD
from remote_payload.agent.wire.paths import RunPaths

ENDING = ("COMPLETING", "CONFIGURING", "STAGE_OUT")  # the last two cannot be where a payload runs


@pytest.fixture
def supervisor(tmp_path) -> batch.BatchSupervisor:
    run = RunPaths(str(tmp_path))
    os.mkdir(run.slurm)
    made = batch.BatchSupervisor.__new__(batch.BatchSupervisor)
    made.run, made._mine, made._ended_by_slurm = run, Attempt(7, 0, "n1"), False
    made._whole_launch, made._began = LaunchFile(("true",), {}, time_limit=60.0), time.monotonic() - 45
    return made


def answer(monkeypatch: pytest.MonkeyPatch, *jobs: Job) -> None:
    monkeypatch.setattr(slurm, "jobs", lambda: {job.number: job for job in jobs})


@pytest.mark.stand_in
@pytest.mark.parametrize("state", [state for state in GOING if state not in ENDING])
def test_while_slurm_delivers_its_signal_the_job_is_not_being_ended(monkeypatch, supervisor, state: str) -> None:
    """The list shows SIGNALING until the signal has arrived, or RUNNING: the supervisor asks between the two. stand_in: Slurm's list."""
    answer(monkeypatch, Job(7, state, 0.0, 12.0, "n1", "None"))
    assert supervisor._time_left() == 12.0
    assert not supervisor._ended_by_slurm and not files.is_noted(supervisor.run, TOLD)


@pytest.mark.stand_in
def test_one_list_without_the_job_is_no_end_of_it(monkeypatch, supervisor) -> None:
    """stand_in: Slurm's list."""
    answer(monkeypatch)
    left = supervisor._time_left()
    assert left is not None and 10 < left <= 15 and not supervisor._ended_by_slurm


@pytest.mark.stand_in
@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL"])
def test_a_job_that_slurm_ends_may_come_back(monkeypatch, supervisor, state: str) -> None:
    """stand_in: Slurm's list."""
    answer(monkeypatch, Job(7, state, 0.0, 0.0, "n1", "None"))
    assert supervisor._time_left() is None
    assert supervisor._ended_by_slurm and files.is_noted(supervisor.run, TOLD)
