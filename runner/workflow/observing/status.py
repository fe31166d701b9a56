"""The status of runs: from the box, or from the record when the box cannot be reached."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner import store
from runner.domain.answers.status import Status
from runner.domain.answers.verbs import GpuSetAside
from runner.domain.errors import ConnectFailed, GpurunError, RunCancelled, RunFailed, RunLost
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean, clean_lines
from runner.workflow.connect import connect, connect_to_run, resolve_or_start_host
from runner.workflow.each_host import Place, ask_each_host, by_place
from runner.workflow.observing.follow import remember_status
from runner.workflow.observing.listing import cost, elapsed

if TYPE_CHECKING:
    from runner.transport.link import Link

LONGEST = 1e10  # seconds or steps; a box that says more is not believed
NOT_THERE = "folder_deleted"  # the cause of a run that its box does not know


@dataclass(frozen=True)
class Seen:
    """A run's status, and the time ``at`` which it was true. ``unreachable`` says why the box could not be asked now."""

    run: Run
    status: Status | None
    at: float | None
    unreachable: str | None = None

    @property
    def elapsed(self) -> float | None:
        """Seconds of the run so far, by the box's own clock."""
        return elapsed(self.run.status)

    @property
    def not_there(self) -> bool:
        """Whether the box does not know the run: its folder was deleted, or the address belongs to another box now."""
        return self.status is not None and self.status.cause == NOT_THERE

    @property
    def cost(self) -> float | None:
        """Price so far, in the job's own currency."""
        return cost(self.run)

    @property
    def eta(self) -> float | None:
        """Seconds to the last step, from the pace since the first one."""
        step = self.status.progress.get("step") if self.status and not self.status.finished else None
        if not isinstance(step, dict) or not self.elapsed:
            return None
        done, total, ms = step.get("step"), step.get("total"), step.get("ms")
        if not isinstance(done, int | float) or not isinstance(total, int | float) or not 0 < done <= total < LONGEST:
            return None
        pace = ms / 1000 if isinstance(ms, int | float) and 0 < ms < LONGEST else self.elapsed / done
        seconds = (total - done) * pace
        return seconds if seconds < LONGEST else None

    @property
    def cost_at_end(self) -> float | None:
        """What the run will have cost after its last step, at the pace of now; None where that cannot be foreseen."""
        if self.cost is None or self.eta is None or not self.elapsed:
            return None
        return self.cost * (1 + self.eta / self.elapsed)


def refresh_status(run: Run, report: Reporter) -> Seen:
    """The run's status, from its box; from the record, with the reason, when the box cannot be reached.

    Raises HostError where something else answers, or refuses: then the record says nothing about now.
    """
    if not run.may_be_there:
        return Seen(run, None, None)
    known = recorded_status(run)
    if known and known.status and known.status.finished and not known.not_there:
        return known
    try:
        with connect_to_run(run, report) as link:
            return query_box(link, run)
    except RunLost:
        return Seen(run, None, None)
    except ConnectFailed as error:
        return Seen(run, known.status if known else None, run.status_at, unreachable=error.message)


def refresh_all(runs: Iterable[Run], report: Reporter) -> list[str]:
    """Brings the records of those runs up to date that may go on, over one connection to each box, all at once.

    Gives for each box that cannot be asked the reason.
    """
    groups = by_place(run for run in runs if run.may_be_there and not (run.status and run.status.finished))

    def ask(place: Place, link: Link, told: Reporter) -> None:
        found = link.agent.statuses([run.run_id for run in groups[place]])
        for run in groups[place]:
            if found[run.run_id].cause != NOT_THERE or run.launched:
                remember_status(run, found[run.run_id])

    return [error.message for error in ask_each_host(groups, ask, report).errors.values()]


def query_box(link: Link, run: Run) -> Seen:
    """The run's status over a link that is there. Raises RunLost when the box knows no such run and never confirmed it."""
    status = link.agent.status(run.run_id)
    if status.cause != NOT_THERE or run.launched:
        remember_status(run, status)
        return Seen(run, status, time.time())
    raise RunLost(
        f"the box {link.host} has no run {run.run_id}",
        meaning="Its folder was deleted, or this address now belongs to another box.",
        hint="gpurun list --host HOST shows what is on a box.",
    )


def not_there(run: Run) -> RunLost:
    """The error for a run that its box does not know."""
    return RunLost(
        f"{run.run_id} is lost: it is not on the box at {run.host}",
        meaning="Its folder was deleted, or this address belongs to another box now. What was fetched before is here.",
        hint=f"If its box has another address now: gpurun status {run.run_id} --host NEW. gpurun list --host '{run.host}' shows what "
        "is on the box there; gpurun submit starts the job anew.",
    )


def recorded_status(run: Run) -> Seen | None:
    """What the record says, without asking anybody."""
    return Seen(run, run.status, run.status_at) if run.status else None


@dataclass(frozen=True)
class OnHost:
    """Every run on a box, also from other machines, with this machine's record of it; and the GPUs that are set aside there."""

    runs: list[tuple[Status, Run | None]]
    set_aside: tuple[GpuSetAside, ...]


def on_host(typed: str, report: Reporter) -> OnHost:
    """What is on a box now. This machine's records are brought up to date."""
    known = {run.run_id: run for run in store.load_all()[0]}
    with connect(resolve_or_start_host(typed), report) as link:
        there = link.agent.all_status()
    found = []
    for status in there.runs:
        run = known.get(status.run_id)
        if run is not None and not (run.status and run.status.finished):
            remember_status(run, status)
        found.append((status, run))
    return OnHost(found, there.set_aside)


def raise_for(status: Status) -> None:
    """Raises the error whose exit code says how the run ended; nothing for one that succeeded or still runs."""
    if error := error_of(status):
        raise error


def failures_of(runs: Iterable[Run]) -> list[GpurunError]:
    """Of the runs whose record says that they are over: the error of each that did not succeed."""
    return [error for run in runs if run.status and (error := error_of(run.status))]


def error_of(status: Status) -> GpurunError | None:
    """The error that ``raise_for`` raises; None for a run that succeeded or still runs."""
    if not status.finished or status.outcome == "succeeded":
        return None
    message = f"{status.run_id} {status.outcome.replace('_', ' ') if status.outcome else ''}"
    message += f" ({status.cause})" if status.cause else ""
    message += f"\n{clean(status.evidence)}" if status.evidence else ""
    kinds: dict[str | None, type[GpurunError]] = {"cancelled": RunCancelled, "lost": RunLost, "interrupted": RunLost}
    hint = "gpurun logs shows the whole log"
    if status.outcome == "interrupted":
        hint += "; gpurun resume --all --host HOST starts again all that the restart of the box interrupted"
    elif status.progress.get("checkpoint") and status.cause != NOT_THERE:
        hint += "; gpurun resume goes on from the last good checkpoint"
    hint += "."
    if status.advice:
        hint = f"{clean(status.advice)}\n{hint}"
    return kinds.get(status.outcome, RunFailed)(clean_lines(message, 2000), hint=hint)
