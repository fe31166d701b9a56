"""``gpurun stop`` of a run that is a Slurm job: the supervisor ends the program as on a box; what does not answer is cancelled."""

import signal
import time
from typing import Callable, Optional

from remote_payload.agent.box import slurm
from remote_payload.agent.box.slurm import GOING, PENDING, Job, SlurmError
from remote_payload.agent.run import slot
from remote_payload.agent.run.slurm import files
from remote_payload.agent.run.slurm.batch import STOP
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.protocol import ExitRecord

LOOK_EVERY = 0.5  # seconds
TELL_EVERY = 10.0  # seconds: less than the laptop's patience
ASK_EVERY = 2.0  # seconds between two questions to the controller
PATIENCE = 20.0  # seconds beyond the grace: for the heartbeat at which the supervisor looks for itself, and for its end
CANCEL_LIMIT = 90.0  # seconds for a job that was cancelled to end: Slurm's own KillWait is 30

Tell = Callable[[str], None]


def stop(run: RunPaths, grace: float, tell: Tell) -> None:
    """Ends the run and records it. Raises AgentError HostError where Slurm does not answer, or does not end the job."""
    files.forget(run, STOP)  # of an earlier start, with another grace
    files.note(run, STOP, grace=grace)
    number = files.read_number(run)
    try:
        job = slurm.job(number) if number is not None else None
        if job is not None and job.state in PENDING:
            slurm.cancel(job.number)
        elif job is not None and job.state in GOING:
            slurm.signal(job.number, "USR1")
            tell("job %d has up to %d s to save and end" % (job.number, grace))
    except SlurmError as error:
        tell("Slurm does not answer (%s): the run itself looks for the stop every few seconds" % error)
    if not _await_end(run, number, grace + PATIENCE, tell):
        tell("job %s has not ended by itself and is cancelled" % number)
        _cancel(run, number, tell)
    slurm.LISTED.forget()
    if slot.read(run) is None:
        slot.write(run, ExitRecord("cancelled", 128 + signal.SIGKILL, time.time()))


def _cancel(run: RunPaths, number: Optional[int], tell: Tell) -> None:
    try:
        if number is not None:
            slurm.cancel(number)
    except SlurmError as error:
        raise _not_ended(number, str(error)) from None
    if not _await_end(run, number, CANCEL_LIMIT, tell):
        raise _not_ended(number, "it is not over %d s after scancel" % CANCEL_LIMIT)


def _await_end(run: RunPaths, number: Optional[int], seconds: float, tell: Tell) -> bool:
    """Whether the run is over within this time: its exit is recorded and its supervisor has ended, or Slurm shows the job as ended."""
    deadline, asked_at, told_at = time.monotonic() + seconds, 0.0, time.monotonic()
    while time.monotonic() < deadline:
        if slot.read(run) is not None and files.heartbeat_age(run) is None:
            return True
        if time.monotonic() - asked_at > ASK_EVERY:
            if _has_ended(number):
                return True
            asked_at = time.monotonic()
        if time.monotonic() - told_at > TELL_EVERY:
            tell("job %s is not over yet" % number)
            told_at = time.monotonic()
        time.sleep(LOOK_EVERY)
    return False


def _has_ended(number: Optional[int]) -> bool:
    """Whether Slurm's list shows an end. That it does not have the job proves nothing."""
    try:
        job: Optional[Job] = slurm.job(number) if number is not None else None
    except SlurmError:
        return False
    return job is not None and job.state not in PENDING + GOING


def _not_ended(number: Optional[int], why: str) -> AgentError:
    hint = "On the login node: squeue -j %s, scancel %s" % (number, number)
    return AgentError("HostError", "Slurm has not ended job %s: %s" % (number, why), hint)
