"""Sends one tree into an attempt of its own on the box, the quickest way: with a request, as a tar stream, or by rsync."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from runner.domain.answers.box import EarlierCode
from runner.domain.errors import TransferInterrupted
from runner.domain.progress import Reporter, Stage
from runner.domain.quantities import pluralise
from runner.push.base import Base, new_attempt
from runner.push.digest import AMBIGUOUS
from runner.push.patch import Patch, make_patch, patch_attempt
from runner.push.selection import Selection
from runner.transport.link import Link
from runner.transport.transfer import rsync, tarball
from runner.workflow.submission.plan import Tree

TRIES = 3


@dataclass(frozen=True)
class Reusable:
    """What the box has that need not be sent again."""

    bases: tuple[Base, ...] = ()  # trees to take unchanged files from
    earlier_code: EarlierCode | None = None  # code of a run, which a patch may turn into ours
    attempt: str | None = None  # what this push has just sent, of
    selection: Selection | None = None  # this selection, before files were edited

    def after(self, link: Link, attempt: str, selection: Selection | None = None) -> Reusable:
        """The same and one attempt more, newer than the others."""
        base = Base.attempt(link.paths.incoming(attempt))
        return Reusable((base, *self.bases), None, attempt if selection else None, selection)


def send(link: Link, tree: Tree, name: str, reusable: Reusable, report: Reporter) -> str:
    """Puts the tree below ``incoming/<name>``; the attempt's name. Raises TransferError."""
    patch = _patch(tree, reusable)
    if patch is not None:
        attempt = new_attempt(name)
        if _send_patch(link, tree, patch, attempt, report):
            return attempt
    names = [entry.path for entry in tree.selection.files]
    with report.stage(f"push {tree.title} ({pluralise(len(names), 'file')})", "bytes") as stage:
        stage.update(done=0, total=tree.selection.total_bytes)
        if not reusable.bases and tarball.pays(len(names), tree.selection.total_bytes):
            attempt = new_attempt(name)
            if _send_tar_stream(link, tree, names, attempt, stage):
                return attempt
            reusable = reusable.after(link, attempt)
        for left in reversed(range(TRIES)):
            attempt = new_attempt(name)  # an earlier attempt may still be written to on the box
            try:
                _send_by_rsync(link, tree, attempt, reusable.bases, stage)
                return attempt
            except TransferInterrupted as error:
                if not left or not error.retryable:
                    raise
                report.warn(f"{error.message}; going on from there")
                reusable = reusable.after(link, attempt)
    raise AssertionError("the last try returns or raises")


def _patch(tree: Tree, reusable: Reusable) -> Patch | None:
    if tree.contents is not None or not tree.permissions:
        return None
    try:
        if reusable.attempt and reusable.selection:
            return patch_attempt(reusable.attempt, reusable.selection, tree.selection)
        return make_patch(tree.selection, reusable.earlier_code)
    except OSError:  # a file was deleted meanwhile: the end of the push notices it
        return None


def _send_patch(link: Link, tree: Tree, patch: Patch, attempt: str, report: Reporter) -> bool:
    """Sends the few files that changed; False where that is not enough and rsync has to do it."""
    of = pluralise(len(tree.selection.files), "file")
    with report.stage(f"push {tree.title} ({patch.files} of {of})", "bytes") as stage:
        stage.update(done=0, total=patch.total_bytes)
        try:
            link.agent.patch({**patch.args, "incoming": attempt}, patch.data)
        except TransferInterrupted:
            return False
        stage.update(done=patch.total_bytes)
    return True


def _send_tar_stream(link: Link, tree: Tree, names: list[str], attempt: str, stage: Stage) -> bool:
    """Sends everything as a tar stream; False where that broke off, and rsync goes on from what arrived."""
    total = tree.selection.total_bytes

    def tell(done: int) -> None:
        stage.update(done=min(done, total))

    edited = max(entry.mtime_ns for entry in tree.selection.files) / 1e9
    target, just_now = link.paths.incoming(attempt), edited > time.time() - AMBIGUOUS
    try:
        tarball.push(link.host, tree.source, names, target, tell, compress=link.slow, exact_times=just_now)
        return True
    except TransferInterrupted:
        return False


def _send_by_rsync(link: Link, tree: Tree, attempt: str, bases: Sequence[Base], stage: Stage) -> None:
    """Runs rsync, which takes equal files of the bases as hard links.

    Files that a base may have with equal size and time, but other content, go in a second rsync that compares contents.
    """
    doubted = {entry.path for entry in tree.selection.files if any(base.may_differ(entry) for base in bases)}
    certain = [entry.path for entry in tree.selection.files if entry.path not in doubted]
    for names, ignore_times in ((certain, False), (sorted(doubted), True)):
        if names or not (ignore_times or doubted):  # an empty tree is a tree too
            rsync.push(
                link.host,
                tree.source,
                names,
                link.paths.incoming(attempt),
                size=tree.selection.total_bytes,
                link_dest=[base.path for base in bases],
                checksum=tree.contents is not None and not tree.fixed and not ignore_times,
                ignore_times=ignore_times,
                compress=link.slow,
                progress=lambda done: stage.update(done=done),
            )
