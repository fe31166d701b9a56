"""Sends code, data and the training package to the box: only what it lacks, and nothing gets its final name before it is complete.

Where files are edited while they are pushed, the folder is selected again and the changed files are sent again. Before the box
takes a tree (``seal`` for data, the launch for code), it compares it with what the laptop selected; where the two differ, the whole
tree is sent again.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace

from runner.domain.answers.box import Box, TreeOnBox
from runner.domain.errors import PushDiffers, TransferError, TransferFailed
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.requests import CodeRequest, DataRequest
from runner.domain.terminal import clean
from runner.push.base import Base, new_attempt
from runner.push.digest import changed, listed
from runner.push.own_output import receivers
from runner.push.problems import MAX_NAMED, counted
from runner.push.selection import OWN_OUTPUT
from runner.transport.link import Link
from runner.workflow.submission.checks import has_tree
from runner.workflow.submission.plan import Plan, Tree, select_again
from runner.workflow.submission.send import Reusable, send

ROUNDS = 4  # the first, and three for files that are edited meanwhile
TRIES = 3  # for a tree that arrives with differences


@dataclass(frozen=True)
class Pushed:
    """Where everything is on the box: the code in an attempt or with an earlier run (``link_from``), the rest as the launch takes it."""

    code: Tree | None
    attempt: str | None
    link_from: str | None
    data: tuple[DataRequest, ...]
    outputs: str | None  # the key of what the run begins with
    payload: str | None
    read_at: int  # when no file of the code was changing, by this machine's clock

    @property
    def code_request(self) -> CodeRequest | None:
        """The launch's argument for the code; None for a job without any."""
        if self.code is None:
            return None
        return {
            "incoming": self.attempt, "link_from": self.link_from, "read_at": self.read_at, **self.code.expected,
        }  # fmt: skip


def push(link: Link, plan: Plan, box: Box, run_id: str, report: Reporter) -> Pushed:
    """Sends what is missing. Raises TransferError; the run was not claimed then, and repeating the command goes on from there."""
    if plan.payload and not box.have.payload:
        with report.stage("send the training package", "bytes"):
            link.agent.install_payload(plan.payload.sha256, plan.payload.data)
    data = (*(_push_data(link, plan, tree, box, run_id, report) for tree in plan.data), *plan.shared)
    outputs = _push_data(link, plan, plan.outputs, box, run_id, report)["key"] if plan.outputs else None
    payload, same = plan.payload.sha256 if plan.payload else None, box.have.code
    if plan.code is None:
        return Pushed(None, None, None, data, outputs, payload, 0)
    if same is not None:
        report.note(f"code: unchanged since {same}, nothing to send")
        return Pushed(plan.code, None, same, data, outputs, payload, int(time.time()))
    reusable = Reusable((*_attempts(link, box, run_id), *_base(box.have.code_base)), box.have.earlier_code)
    tree, attempt = _push_until_unchanged(link, plan.job, plan.code, run_id, reusable, run_id, report)
    return Pushed(tree, attempt, None, data, outputs, payload, int(time.time()))


def push_code_anew(link: Link, job: Job, pushed: Pushed, run_id: str, left: int, report: Reporter) -> Pushed:
    """Sends all of the code again, after a launch that found differences. Raises PushDiffers when no tries are ``left``."""
    assert pushed.code is not None
    tree = _after_difference(link, pushed.code, pushed.attempt, left, report)
    tree, attempt = _push_until_unchanged(link, job, select_again(job, tree, ()), run_id, Reusable(), run_id, report)
    return replace(pushed, code=tree, attempt=attempt, link_from=None, read_at=int(time.time()))


def _push_data(link: Link, plan: Plan, tree: Tree, box: Box, run_id: str, report: Reporter) -> DataRequest:
    """Sends one of the data where the box lacks it; the launch's argument for it."""
    if not has_tree(box, plan, tree.name):
        name = tree.key
        reusable = Reusable((*_attempts(link, box, name), *_base(box.have.data_bases.get(name))))
        for left in reversed(range(TRIES)):
            try:
                tree, attempt = _push_until_unchanged(link, plan.job, tree, name, reusable, run_id, report)
            except TransferFailed:
                if not _sealed_by_another(link, tree, name):
                    raise
                break
            try:
                _seal(link, tree, attempt)
                break
            except PushDiffers:
                tree, reusable = _after_difference(link, tree, attempt, left, report), Reusable()
    return {"path": tree.name, "key": tree.key, "member": tree.member}


def _seal(link: Link, tree: Tree, attempt: str) -> None:
    link.agent.seal({"incoming": attempt, "key": tree.key, "read_at": int(time.time()), **tree.expected})


def _sealed_by_another(link: Link, tree: Tree, name: str) -> bool:
    """Whether another gpurun has pushed the same data meanwhile. That removes the folder that this push wrote to."""
    try:
        _seal(link, tree, new_attempt(name))
        return True
    except TransferError:
        return False


def _push_until_unchanged(
    link: Link, job: Job, tree: Tree, name: str, reusable: Reusable, run_id: str, report: Reporter
) -> tuple[Tree, str]:
    """Sends the tree, and again what is edited meanwhile, until nothing changes.

    Gives the tree that was sent last, and the attempt that holds it. Raises TransferError.
    """
    own_output: set[str] = set()
    _note_own_output(tree, report)
    for left in reversed(range(ROUNDS)):
        attempt = None
        try:
            attempt = send(link, tree, name, reusable, report)
        except TransferFailed:
            if not changed(tree.selection):  # where a file shrank while rsync read it, rsync's own message says less
                raise
        touched = changed(tree.selection)
        if attempt and not touched:
            break
        own_output |= receivers(tree.source, touched, run_id)
        now = select_again(job, tree, own_output)
        moved = sorted({entry.path for entry in set(tree.selection.files) ^ set(now.selection.files)})
        if attempt and not moved:
            break  # only what is not sent came, went or changed
        if not left:
            raise _kept_changing(tree, moved)
        report.note(f"{tree.title}: {counted(moved, 'file')} changed during the push, sending again")
        reusable = reusable.after(link, attempt, tree.selection) if attempt else reusable
        tree = now
        _note_own_output(tree, report, own_output)
    assert attempt is not None
    return tree, attempt


def _note_own_output(tree: Tree, report: Reporter, only: set[str] | None = None) -> None:
    for left in tree.selection.left_out:
        if left.reason == OWN_OUTPUT and (only is None or left.path in only):
            report.note(f"{tree.title}: {clean(left.path)} is not sent: gpurun's own output goes there")


def _after_difference(link: Link, tree: Tree, attempt: str | None, left: int, report: Reporter) -> Tree:
    """The tree to push again after the box found differences: without permissions where nothing else differs.

    Raises PushDiffers, with names, when no tries are ``left``.
    """
    if attempt is None:
        report.note(f"{tree.title}: it was changed on the box meanwhile, sending it")
        return tree
    differs = link.agent.compare(attempt, listed(tree.selection, tree.contents))
    named = ", ".join(f"{each.path} ({each.why})" for each in differs[:MAX_NAMED])
    if differs and all(each.why == "other permissions" for each in differs):
        report.warn(f"{tree.title}: the box's filesystem does not keep permissions: {named}")
        return replace(tree, permissions=False)
    if not left:
        raise PushDiffers(
            f"{tree.title} does not arrive on the box as it is here: {named}",
            meaning="The run was not started.",
            hint="Look at the box's disk (gpurun check shows it), or name another place: gpurun hosts set HOST --volume DIR",
        )
    report.warn(f"{tree.title}: not all arrived as it is here ({named}), sending it again")
    return tree


def _kept_changing(tree: Tree, moved: list[str]) -> TransferFailed:
    leave_out = f"code: {{exclude: [{', '.join(_pattern(path) for path in moved[:MAX_NAMED])}]}}"
    return TransferFailed(
        f"{counted(moved, 'file')} changed during the push, {ROUNDS} times",
        meaning="The run was not started: it would have trained on a mixture.",
        hint=(
            "Where the run does not need it, leave it out in the job file:\n" + leave_out + "\n"
            if not tree.name
            else ""
        )
        + "Repeat the command when the files do not change any more; only what changed is sent again.",
    )


def _pattern(path: str) -> str:
    """A path as a pattern for ``code.exclude`` that matches it alone."""
    return json.dumps("/" + re.sub(r"([\\*?\[\] ])", r"\\\1", clean(path, 500)))


def _attempts(link: Link, box: Box, name: str) -> list[Base]:
    """What earlier pushes, that did not finish, have sent; the newest first."""
    return [Base.attempt(link.paths.incoming(f"{name}/{each}")) for each in box.have.attempts.get(name, ())]


def _base(offered: TreeOnBox | None) -> list[Base]:
    """A tree of which the push may take unchanged files."""
    return [Base.completed(offered.path, offered.read_at)] if offered else []
