"""Which runs waited or ran on a box that is gone: it cannot be reached, or another box answers at its address."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runner.domain.errors import ConnectFailed, GpurunError, HostKeyChanged, LinkLost, Unanswered
from runner.domain.progress import Reporter
from runner.domain.run import BOX, Run
from runner.transport.link import Link
from runner.workflow.connect import connect, resolve_or_start_host
from runner.workflow.each_host import ask_each_host, by_place
from runner.workflow.observing.follow import remember_status
from runner.workflow.observing.status import NOT_THERE
from runner.workflow.recovery.turns import Records
from runner.workflow.submission.launch import confirm_start


def unfinished_elsewhere(records: Records, host: str) -> list[Run]:
    """The runs of other hosts that were not over as last seen, in the order of their ids.

    Not those that another run has continued, unless that is one which ``host`` was asked to start and has not confirmed.
    """
    return [
        run
        for run in records.runs.values()
        if run.may_be_there and run.host != host and run.engine == BOX and not run.done and not run.others
        if _may_go_on(run) and not _is_continued(run, records, host)
    ]


def _may_go_on(run: Run) -> bool:
    status = run.status
    return status is None or not status.finished or status.outcome == "interrupted" or status.cause == NOT_THERE


def _is_continued(run: Run, records: Records, host: str) -> bool:
    child = records.children.get(run.run_id)
    return child is not None and child.may_be_there and (child.launched or child.host != host)


def on_gone_boxes(runs: Sequence[Run], host: str, report: Reporter) -> list[Run]:
    """Those of the runs whose box is gone, first those that ran, then those that waited. Of the others it is said where they are."""
    groups = by_place(runs)
    answers = ask_each_host(groups, lambda place, link, told: _gone_from(link, groups[place]), report)
    gone: list[Run] = []
    for place, found in answers.given.items():
        gone += found
        stay = [run for run in groups[place] if run not in found]
        if any(run.launched and not (run.status and run.status.finished) for run in stay):
            report.note(f"{place.host} answers: its runs go on there")
        if any(not run.launched or (run.status and run.status.outcome == "interrupted") for run in stay):
            report.note(
                f"{place.host} answers: gpurun resume --all --host '{place.host}' starts what is to start there"
            )
    for place, error in answers.errors.items():
        if _is_gone(error):
            report.warn(
                f"{place.host} is taken to be gone: {error.message}. What still runs there costs money, and would run twice"
            )
            gone += groups[place]
        else:
            report.warn(f"{place.host} may be there, so its runs stay: {error.message}")
    waited = {run.run_id for run in gone if run.status is None or run.status.phase == "prepared"}
    return sorted(gone, key=lambda run: (run.run_id in waited, _order(run)))


def without_those_on(runs: Sequence[Run], host: str, report: Reporter) -> list[Run]:
    """The runs that are not on the box at ``host``, which may be their own box at another address."""
    if not runs:
        return []
    with connect(resolve_or_start_host(host), report) as link:
        statuses = link.agent.statuses([run.run_id for run in runs])
        identity = link.agent.identity
    there = {
        run.run_id: run.host
        for run in runs
        if (run.box and run.box == identity) or statuses[run.run_id].cause != NOT_THERE
    }
    for old in dict.fromkeys(there.values()):
        report.note(f"{host} is the box that was at {old}: its runs are there (gpurun hosts move '{old}' '{host}')")
    return [run for run in runs if run.run_id not in there]


def _order(run: Run) -> tuple[float, float]:
    started = run.status.started_at if run.status else None
    return started or 0.0, run.created_at


def _gone_from(link: Link, runs: Collection[Run]) -> list[Run]:
    """Of the runs that were at this address those of another box. A run that this box was asked to start and does not know stays: another
    gpurun may be about to start it.
    """
    mine = [run for run in runs if not (run.box and link.agent.identity and run.box != link.agent.identity)]
    statuses = link.agent.statuses([run.run_id for run in mine]) if mine else {}
    for run in mine:
        status = statuses[run.run_id]
        if run.launched or status.cause not in (NOT_THERE, "not_started"):
            remember_status(run, status)
            if not run.launched:
                confirm_start(link, run)
    return [run for run in runs if run not in mine]


def _is_gone(error: GpurunError) -> bool:
    """Whether an error says that the box is not there any more; one that answers and does not work may be there."""
    if isinstance(error, LinkLost | Unanswered):
        return False
    return isinstance(error, ConnectFailed | HostKeyChanged)
