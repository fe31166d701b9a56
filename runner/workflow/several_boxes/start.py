"""The start of a run on all its boxes: at once, since each waits for the others; and on none where one refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from runner import store
from runner.domain.errors import GpurunError
from runner.domain.run import OtherBox, Run
from runner.workflow.each_host import each_host
from runner.workflow.several_boxes.members import Member
from runner.workflow.submission import launch
from runner.workflow.submission.launch import Start
from runner.workflow.submission.plan import Plan
from runner.workflow.submission.push import Pushed
from runner.workflow.submission.records import is_refusal


def launch_on_all(
    members: Sequence[Member], run: Run, plan: Plan, pushed: Sequence[Pushed], starts: Sequence[Start]
) -> None:
    """Starts the run on every box. Where one refuses, it is ended on those that have started it, and the refusal is raised."""
    answers = each_host(
        range(len(members)),
        lambda rank: launch.launch(members[rank].link, run, plan, pushed[rank], starts[rank], members[rank].report),
    )
    refused = [error for error in answers.errors.values() if is_refusal(error)]
    if refused:
        started = [members[rank] for rank in answers.given]
        each_host(started, lambda member: _end(member, run))
        raise refused[0]
    answers.raise_first()


def _end(member: Member, run: Run) -> None:
    with contextlib.suppress(GpurunError):  # the supervisor ends the payload where no other box comes
        member.link.agent.stop(run.run_id, 0, lambda line: None)


def confirm(members: Sequence[Member], run: Run) -> None:
    """Writes into the record that all boxes have confirmed the start, and where it is on each."""
    others = tuple(
        OtherBox(
            host=member.host,
            volume=member.link.agent.volume,
            address=str(member.link.host),
            root=member.link.paths.root,
            box=member.link.agent.identity or None,
        )
        for member in members[1:]
    )
    store.update(run, others=others)
    launch.confirm_start(members[0].link, run)
