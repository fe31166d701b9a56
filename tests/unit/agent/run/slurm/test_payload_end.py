"""The end of a program on a compute node, beside a TERM of Slurm that went to all processes of the job at once."""

import signal

import pytest

from remote_payload.agent.box import slurm
from remote_payload.agent.box.slurm import Job, SlurmError
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.run.slurm import batch
from remote_payload.agent.run.slurm.files import Attempt
from remote_payload.agent.run.supervisor import Supervisor
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.protocol import ExitRecord

pytestmark = pytest.mark.stand_in  # Slurm's list
ENDED = ExitRecord("exit", 0, 1.0)  # a program that saves at a TERM and ends well


@pytest.fixture
def supervisor(tmp_path, monkeypatch: pytest.MonkeyPatch) -> batch.BatchSupervisor:
    """A batch step whose program has just ended; ``recorded`` is its end, where it counts as the run's."""
    made = batch.BatchSupervisor.__new__(batch.BatchSupervisor)
    made.run, made._mine, made._taken, made._received = RunPaths(str(tmp_path)), Attempt(7, 0, "n1"), False, None
    made._ended_by_us, made._ended_by_slurm, made._goes_on, made._got_term = None, False, False, False
    made.launch = made._whole_launch = LaunchFile(("true",), {})
    made.recorded = []
    monkeypatch.setattr(Supervisor, "_record_end", lambda self, record: self.recorded.append(record))
    monkeypatch.setattr(batch, "ANSWER_LIMIT", 0.2)
    return made


def answer(monkeypatch: pytest.MonkeyPatch, *answers: "str | None") -> None:
    """Slurm's answers, one after the other, the last one for ever; None is no answer."""
    left = list(answers)

    def jobs() -> "dict[int, Job]":
        state = left.pop(0) if len(left) > 1 else left[0]
        if state is None:
            raise SlurmError("down")
        return {7: Job(7, state, 0.0, None, "n1", "None")} if state else {}

    monkeypatch.setattr(slurm, "jobs", jobs)


@pytest.mark.parametrize("earlier", [False, True], ids=["at once", "when our own TERM was looked at before"])
@pytest.mark.parametrize(
    "answers", [("COMPLETING",), (None, "", "COMPLETING"), ("RUNNING", "COMPLETING"), ("PENDING",), ("CANCELLED",)]
)
def test_a_program_that_ended_since_slurm_ends_the_job_has_not_succeeded(
    monkeypatch, supervisor, answers, earlier
) -> None:
    answer(monkeypatch, *answers)
    monkeypatch.setattr(batch, "ANSWER_LIMIT", 5.0)
    supervisor._received, supervisor._got_term = (signal.SIGCHLD, True) if earlier else (signal.SIGTERM, False)
    supervisor._record_end(ENDED)
    assert supervisor.recorded == [] and supervisor._goes_on


@pytest.mark.parametrize("received", [None, signal.SIGCHLD, signal.SIGTERM])
def test_a_program_of_a_job_that_goes_on_has_ended_by_itself(monkeypatch, supervisor, received) -> None:
    answer(monkeypatch, "RUNNING")
    supervisor._received = received
    supervisor._record_end(ENDED)
    assert supervisor.recorded == [ENDED] and not supervisor._goes_on


@pytest.mark.parametrize(("received", "counts"), [(signal.SIGCHLD, True), (signal.SIGTERM, False)])
def test_where_slurm_does_not_answer_a_term_is_taken_for_its_own(monkeypatch, supervisor, received, counts) -> None:
    answer(monkeypatch, None)
    supervisor._received = received
    supervisor._record_end(ENDED)
    assert supervisor.recorded == ([ENDED] if counts else [])
