"""The table of states of a run that is a Slurm job and has no exit record: docs/slurm.md, "What counts as alive". Pure.

``look`` collects the facts. An exit record wins over all of this (``run/state.py``).
"""

import time
from typing import NamedTuple, Optional

from remote_payload.agent.box.slurm import GOING, PENDING, Job
from remote_payload.agent.run.slurm.files import FRESH

ABSENCE = 300.0  # seconds that Slurm's list must not have had the job, and the heartbeat been silent
# Seconds for which an end that a requeue may follow is not believed: the list shows it for a moment before it shows the job as pending.
SETTLED = 60.0
FARTHEST = (
    30 * 86400.0
)  # seconds: Slurm expects a job without a time limit to run for a year, which says nothing of the next one's start
REQUEUED_AFTER = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")
ENDS = {
    "CANCELLED": ("cancelled", "scancel"),
    "TIMEOUT": ("timed_out", "time_limit"),
    "DEADLINE": ("timed_out", "time_limit"),
    "NODE_FAIL": ("interrupted", "node_failed"),
    "BOOT_FAIL": ("interrupted", "node_failed"),
    "PREEMPTED": ("interrupted", "preempted"),
    "OUT_OF_MEMORY": ("failed", "host_oom"),
}


class Seen(NamedTuple):
    """What shows of a run's job at one moment. Times are seconds."""

    number: Optional[int] = None  # of the job, None where it was not written down
    heartbeat: Optional[float] = None  # since it was touched; None where there is none
    began: bool = False  # whether the job's supervisor has ever begun
    job: Optional[Job] = None  # as Slurm's list has it; None where it does not, or was not asked
    error: Optional[str] = None  # why the list could not be had
    absent: float = 0.0  # for how long the list has not had the job
    ended: Optional[str] = None  # the state in which the list, or the accounting, showed it last, if that was an end
    ended_for: float = 0.0  # since when
    told: bool = False  # Slurm had told the supervisor to end
    requeue: bool = False  # whether Slurm may start the job again
    said: str = ""  # the last line of the supervisor's own log
    over: bool = False  # a status has said that the run is over; nothing but the job itself can take that back


class Verdict(NamedTuple):
    """``phase`` and ``outcome`` as a status has them; ``evidence`` is one line about it."""

    phase: str
    outcome: Optional[str] = None
    cause: Optional[str] = None
    evidence: Optional[str] = None
    stalled: bool = False

    @property
    def alive(self) -> bool:
        """Whether the run is not over."""
        return self.phase != "finished"


def judge(seen: Seen) -> Verdict:
    """The state of the run."""
    if seen.heartbeat is not None and seen.heartbeat < FRESH:
        return Verdict("running")
    if seen.job is not None and seen.job.state in PENDING:
        return Verdict("prepared", evidence=_why_it_waits(seen.job))
    if seen.job is not None and seen.job.state in GOING:
        return _going(seen, seen.job)
    if seen.error is not None and not seen.over:
        return _as_it_was(seen, "Slurm does not answer: %s" % seen.error)
    ended = seen.job.state if seen.job is not None else seen.ended
    if ended is not None:
        may_come_back = seen.requeue and ended in REQUEUED_AFTER and seen.ended_for < SETTLED and not seen.over
        return (
            _as_it_was(seen, "Slurm's job %s ended as %s" % (_name(seen), ended))
            if may_come_back
            else _end(seen, ended)
        )
    if not seen.over and (seen.absent < ABSENCE or (seen.heartbeat is not None and seen.heartbeat < ABSENCE)):
        left = max(0.0, ABSENCE - min(seen.absent, seen.heartbeat if seen.heartbeat is not None else ABSENCE))
        text = "Slurm's list does not have job %s; unless it shows again, the run counts as gone in %d s"
        return _as_it_was(seen, text % (_name(seen), left))
    if seen.told:
        return Verdict("finished", "interrupted", "ended_by_slurm")
    return Verdict("finished", "lost", "vanished" if seen.began else "not_started")


def _going(seen: Seen, job: Job) -> Verdict:
    stalled = job.state in ("SUSPENDED", "STOPPED")
    if not seen.began:
        return Verdict(
            "launched", evidence="Slurm starts job %d on %s (%s)" % (job.number, job.nodes or "its node", job.state)
        )
    if seen.heartbeat is None:
        return Verdict("running", stalled=stalled)
    text = "Slurm says %s on %s, and the run has shown no sign of life for %d s"
    return Verdict("running", evidence=text % (job.state, job.nodes or "its node", seen.heartbeat), stalled=stalled)


def _as_it_was(seen: Seen, evidence: str) -> Verdict:
    return Verdict("running" if seen.began else "prepared", evidence=evidence)


def _end(seen: Seen, state: str) -> Verdict:
    unknown = ("interrupted", "ended_by_slurm") if seen.told else ("lost", "vanished" if seen.began else "not_started")
    outcome, cause = ENDS.get(state, unknown)
    said = ": %s" % seen.said if seen.said and outcome == "lost" else ""
    return Verdict("finished", outcome, cause, "Slurm's job %s ended as %s%s" % (_name(seen), state, said))


def _why_it_waits(job: Job) -> str:
    reason = job.reason if job.reason not in ("", "None") else "it is looked at next"
    text = "waiting in Slurm's queue as job %d: %s" % (job.number, reason)
    if job.starts is None or job.starts - time.time() > FARTHEST:
        return text
    return text + ", expected to start at %s" % time.strftime("%Y-%m-%d %H:%M", time.localtime(job.starts))


def _name(seen: Seen) -> str:
    return "?" if seen.number is None else str(seen.number)
