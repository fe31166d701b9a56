"""Code, data and the training package onto the box: only what it lacks, and nothing under a final name before it is whole."""

from __future__ import annotations

import time
from typing import Any

from runner.domain.box import Box
from runner.domain.errors import TransferFailed, TransferInterrupted
from runner.domain.progress import Reporter, Stage
from runner.domain.words import count
from runner.push.digest import changed
from runner.push.patch import make_patch
from runner.transport import rsync, tarball
from runner.transport.link import Link
from runner.workflow.checks import has
from runner.workflow.plan import Plan, Tree

TRIES = 3
AMBIGUOUS = 2.0  # seconds; what was edited so recently can be edited again with the same time in whole seconds


def push(link: Link, plan: Plan, box: Box, run_id: str, report: Reporter) -> dict[str, Any]:
    """Sends what is missing. The launch arguments ``code``, ``data`` and ``payload`` that say where it lies.

    Raises TransferError; the run was not claimed then, and repeating the command goes on from there.
    """
    if plan.payload and not box.have.get("payload"):
        with report.stage("send the training package", "bytes"):
            link.agent.install_payload(plan.payload.sha256, plan.payload.data)
    for tree in plan.data:
        if not has(box, plan, tree.name):
            _push_data(link, tree, box, report)
    return {
        "code": _push_code(link, plan.code, box, run_id, report) if plan.code else None,
        "data": [{"path": tree.name, "key": tree.key, "member": tree.member} for tree in plan.data],
        "payload": plan.payload.sha256 if plan.payload else None,
    }


def _push_code(link: Link, tree: Tree, box: Box, run_id: str, report: Reporter) -> dict[str, Any]:
    same = box.have.get("code")
    if isinstance(same, str):
        report.note(f"code: unchanged since {same}, nothing to send")
        return {"link_from": same, "digest": tree.digest, "incoming": None}
    previous = box.have.get("link_dest")
    incoming = f"{run_id}/code"
    if not _send_patch(link, tree, run_id, box.have.get("patch"), report):
        _send(link, tree, incoming, previous if isinstance(previous, str) else None, "code", report)
    return {"incoming": incoming, "digest": tree.digest, "link_from": None}


def _send_patch(link: Link, tree: Tree, run_id: str, offered: object, report: Reporter) -> bool:
    """Whether the few files that changed were enough; if not, rsync begins anew."""
    try:
        patch = None if tree.checksum else make_patch(tree.selection, offered)
    except OSError:  # a file went away meanwhile: it is named where the push ends
        patch = None
    if patch is None:
        return False
    of = count(len(tree.selection.files), "file")
    with report.stage(f"push code ({patch.files} of {of})", "bytes") as stage:
        stage.update(done=0, total=patch.total_bytes)
        try:
            link.agent.patch(run_id, patch.args, patch.data)
        except TransferInterrupted:
            return False
        stage.update(done=patch.total_bytes)
    _must_be_at_rest(tree)
    return True


def _push_data(link: Link, tree: Tree, box: Box, report: Reporter) -> None:
    incoming = f"{tree.key}.partial"
    previous = (box.have.get("data_link_dest") or {}).get(tree.key)
    _send(link, tree, incoming, previous if isinstance(previous, str) else None, tree.name, report)
    link.agent.seal(
        incoming=incoming,
        key=tree.key,
        digest=tree.digest,
        files=len(tree.selection.files),
        size=tree.selection.total_bytes,
    )


def _send(link: Link, tree: Tree, incoming: str, link_dest: str | None, what: str, report: Reporter) -> None:
    names = [entry.path for entry in tree.selection.files]
    with report.stage(f"push {what} ({count(len(names), 'file')})", "bytes") as stage:
        stage.update(done=0, total=tree.selection.total_bytes)
        if link_dest is None and _all_at_once(link, tree, names, incoming, stage):
            return _must_be_at_rest(tree)
        for left in reversed(range(TRIES)):
            try:
                rsync.push(
                    link.host,
                    tree.source,
                    names,
                    link.paths.incoming(incoming),
                    link_dest=link_dest,
                    checksum=tree.checksum,
                    compress=link.slow,
                    progress=lambda done: stage.update(done=done),
                )
                break
            except TransferInterrupted as error:
                if not left or not error.retryable:
                    raise
                report.warn(f"{error.message}; going on from there")
            except TransferFailed:
                _must_be_at_rest(tree)  # rsync's own words for a file that shrank under it say less
                raise
    _must_be_at_rest(tree)


def _all_at_once(link: Link, tree: Tree, names: list[str], incoming: str, stage: Stage) -> bool:
    """Whether a tar stream has brought everything; if not, rsync goes on from what it did."""
    total = tree.selection.total_bytes
    if not tarball.pays(len(names), total):
        return False

    def tell(done: int) -> None:
        stage.update(done=min(done, total))

    edited = max(entry.mtime_ns for entry in tree.selection.files) / 1e9
    target, just_now = link.paths.incoming(incoming), edited > time.time() - AMBIGUOUS
    try:
        tarball.push(link.host, tree.source, names, target, tell, compress=link.slow, exact_times=just_now)
        return True
    except TransferInterrupted:
        return False


def _must_be_at_rest(tree: Tree) -> None:
    if moved := changed(tree.selection):
        raise TransferFailed(
            f"{count(len(moved), 'file')} changed during the push: {moved[0]}" + (" and others" if moved[1:] else ""),
            meaning="The run was not started: it would have trained on a mixture.",
            hint="Repeat the command when they are at rest; only what changed is sent again.",
        )
