"""``gpurun wait``: until a run has started, has a checkpoint, or is over; through sleep and lost links."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

from runner.domain.answers.status import Status
from runner.domain.errors import ConnectFailed, StillGoing
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.workflow.lost_links import through_lost_links
from runner.workflow.observing.follow import remember_status
from runner.workflow.observing.listing import describe
from runner.workflow.observing.logs import went_on
from runner.workflow.observing.status import NOT_THERE, not_there, recorded_status

if TYPE_CHECKING:
    from runner.transport.link import Link

Moment = Literal["started", "checkpoint", "end"]
Written = tuple[str, float | None]  # a complete checkpoint, and when it was written
LOOK_EVERY = 2.0  # seconds


def wait(run: Run, report: Reporter, moment: Moment, timeout: float = math.inf) -> Run:
    """The run at that moment; where another run went on from it before, that one. ``timeout`` in seconds.

    A run that resumes another began with copies of its checkpoints: there one counts that comes after the first look. Times of files are
    not compared with the start of the run: a network disk has a clock of its own.

    A run that is over ends every wait. Raises StillGoing when the time is up, RunLost for a run that its box does not have, and the
    HostErrors that another try does not mend.
    """
    deadline = time.monotonic() + timeout
    while True:
        status = _wait(run, report, moment, deadline)
        following = went_on(run) if status is None or status.finished else None
        if following is None:
            return run
        report.note(f"{run.run_id} went on as {following.run_id} on {following.host}")
        run = following


def _wait(run: Run, report: Reporter, moment: Moment, deadline: float) -> Status | None:
    """The status at the moment, or at the run's end; None where its box was lost and another run goes on from it."""
    known = recorded_status(run)
    if known and known.status and known.status.finished and not known.not_there:
        return known.status
    looks = 0
    inherited: set[Written] | None = None if run.parent else set()

    def visit(link: Link) -> Status:
        nonlocal looks, inherited
        while True:
            status = _look(link, run)
            looks += 1
            if status.finished or (moment == "started" and status.phase == "running"):
                return status
            if moment == "checkpoint":
                written = _checkpoints(link, run)
                inherited = written if inherited is None else inherited
                if written - inherited:
                    return status
            _pause(run, deadline)

    try:
        return through_lost_links(
            run,
            report,
            visit,
            progress=lambda: looks,
            give_up=lambda: time.monotonic() > deadline or went_on(run) is not None,
        )
    except ConnectFailed:
        if went_on(run) is not None:
            return None
        if time.monotonic() > deadline:
            _pause(run, deadline)
        raise


def _look(link: Link, run: Run) -> Status:
    status = link.agent.status(run.run_id)
    if status.cause == NOT_THERE:
        raise not_there(run)
    if status != run.status:
        remember_status(run, status)
    return status


def _checkpoints(link: Link, run: Run) -> set[Written]:
    return {(each.name, each.at) for each in link.agent.all_checkpoints(run.run_id).complete.values()}


def _pause(run: Run, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise StillGoing(
            f"the time is up, and {run.run_id} is {describe(run)}",
            meaning="It goes on: only the wait has ended.",
            hint=f"gpurun wait {run.run_id}",
        )
    time.sleep(min(LOOK_EVERY, left))
