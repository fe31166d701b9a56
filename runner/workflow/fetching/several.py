"""``gpurun fetch`` of a sweep: one link to each box, its runs one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.domain.errors import GpurunError, HostError
from runner.domain.progress import Prefixed, Reporter
from runner.domain.run import Run
from runner.workflow.each_host import Place, ask_each_host, by_place
from runner.workflow.fetch import fetch_over
from runner.workflow.follow_up import FollowedRun

if TYPE_CHECKING:
    from runner.transport.link import Link


def fetch_each(runs: Sequence[Run], report: Reporter, *, best: bool = False) -> list[FollowedRun]:
    """Each run with what came home of it, or the error that kept it from coming. One run's error does not end the others' copies."""
    found = {run.run_id: FollowedRun(run) for run in runs}
    groups = by_place(runs)

    def bring(place: Place, link: Link, told: Reporter) -> None:
        for each in [found[run.run_id] for run in groups[place]]:
            if each.fetched is None and each.error is None:  # else it came before the link broke
                _bring(link, each, Prefixed(told, f"{each.run.run_id}: "), best)

    answers = ask_each_host(groups, bring, report)
    for place, error in answers.errors.items():
        for each in [found[run.run_id] for run in groups[place]]:
            if each.fetched is None:
                each.error = each.error or error
    return list(found.values())


def _bring(link: Link, each: FollowedRun, report: Reporter, best: bool) -> None:
    """Raises HostError where the link is the trouble: it is opened again."""
    try:
        each.fetched = fetch_over(link, each.run, report, best=best)
    except HostError:
        raise
    except GpurunError as error:
        each.error = error
