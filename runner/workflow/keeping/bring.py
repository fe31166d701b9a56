"""Brings home what a run has now: the newest checkpoint first, then what else the rule wants, logs and reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.domain.answers.manifest import Artifact, Manifest
from runner.domain.answers.verbs import Kept
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport.link import Link
from runner.workflow.fetch import bring, exclusively, note_place
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.fetching.staging import STAGING
from runner.workflow.keeping.board import KeptRun
from runner.workflow.keeping.home import Home
from runner.workflow.keeping.rule import BEST, Rule, newest_first

Listing = Mapping[str, Kept]  # the box's checkpoints by name


@dataclass(frozen=True)
class Brought:
    """What one look brought: files that were not here, whether that was all of a finished run, and the newest checkpoint that is here."""

    into: Path
    new: tuple[Artifact, ...]
    complete: bool
    newest: Kept | None


@dataclass(frozen=True)
class Plan:
    """What of a manifest comes home, in batches that are moved as a whole, and what the rule leaves on the box."""

    batches: tuple[tuple[Artifact, ...], ...]
    checkpoints: Mapping[str, tuple[Kept, tuple[Artifact, ...]]]  # those that come or are here, by path
    left: tuple[Artifact, ...]


def bring_home(
    link: Link, run: Run, listed: Listing, rule: Rule, report: Reporter, arrived: Callable[[Kept], None]
) -> Brought:
    """Brings what the rule wants and is not here, then removes the checkpoints here that it no longer wants.

    ``arrived`` is told each checkpoint that has come home. Raises as ``fetch`` does.
    """
    target = run.outputs_here
    manifest, home = link.agent.manifest(run.run_id), Home(run, target)
    before = home.verified()
    plan = make_plan(manifest, listed.values(), before, _begun(target), rule)
    by_batch = {batch: kept for kept, batch in plan.checkpoints.values()}

    def moved(batch: Sequence[Artifact]) -> None:
        note_place(run, target)
        kept = by_batch.get(tuple(batch))
        if kept is not None and before.get(kept.path) != kept:
            home.add(kept, batch)
            arrived(kept)

    with exclusively(run):
        new = bring(link, run, plan.batches, target, report, moved) if any(plan.batches) else []
        here = home.verified()
        if here:
            home.keep_only(rule.wanted(here.values()))
        if manifest.complete:
            _leave(plan.left, target)
    if manifest.complete:
        note_place(run, target)
    return Brought(target, tuple(new), manifest.complete, newest_here(home))


def begin(run: Run) -> KeptRun:
    """A run as it is before its box is asked: by its record, and by what is on this machine."""
    is_home = run.status is not None and run.status.finished and run.fetched_at is not None
    return KeptRun(run, newest_here(Home(run, run.outputs_here)), into=run.fetched_into, over=is_home)


def newest_here(home: Home) -> Kept | None:
    """The newest checkpoint that is on this machine, verified, and can be resumed from."""
    return next((each for each in newest_first(home.verified().values()) if each.resumable), None)


def make_plan(
    manifest: Manifest, listed: Iterable[Kept], here: Mapping[str, Kept], begun: set[str], rule: Rule
) -> Plan:
    """What comes home of ``manifest``, whose checkpoints are ``listed``; ``here`` are those that are home, by path.

    A checkpoint of which a beginning has arrived (one of its paths is in ``begun``) comes before a newer one, so that on a slow
    link one is finished at all.
    """
    whole = _whole_checkpoints(manifest, listed)
    wanted = rule.wanted({**here, **{path: kept for path, (kept, _) in whole.items()}}.values())
    going_on = {
        path for path, (kept, files) in whole.items() if path not in here and any(file.path in begun for file in files)
    }
    first = [kept.path for kept in newest_first(kept for kept, _ in whole.values())]
    first.sort(key=lambda path: path not in going_on)
    coming = {path: whole[path] for path in first if path in wanted | going_on}
    in_checkpoints = {file.path for _, files in whole.values() for file in files}
    best = next((each.path for each in listed if each.name == BEST), None)
    others = tuple(
        file
        for file in manifest.files
        if file.path not in in_checkpoints
        and (manifest.complete or rule.is_all or rule.best or best is None or not _is_below(file.path, best))
    )
    brought = {file.path for _, files in coming.values() for file in files}
    left = tuple(file for file in manifest.files if file.path in in_checkpoints - brought)
    return Plan(tuple(batch for batch in (*(files for _, files in coming.values()), others) if batch), coming, left)


def _whole_checkpoints(manifest: Manifest, listed: Iterable[Kept]) -> dict[str, tuple[Kept, tuple[Artifact, ...]]]:
    """By path the listed checkpoints with their files; without those of which the manifest does not have everything."""
    found = {}
    for kept in listed:
        files = tuple(file for file in manifest.files if _is_below(file.path, kept.path))
        if kept.name != BEST and files and sum(file.size for file in files) >= kept.size:
            found[kept.path] = kept, files
    return found


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def _begun(target: Path) -> set[str]:
    """The files of which a beginning lies in the staging folder."""
    top = target / STAGING / "outputs"
    return {os.path.relpath(os.path.join(folder, name), top) for folder, _, names in os.walk(top) for name in names}


def _leave(left: Sequence[Artifact], target: Path) -> None:
    """Notes that the user's rule leaves these on the box: ``gpurun done`` does not ask for them."""
    receipt = Receipt(target)
    for artifact in left:
        if not receipt.has(artifact):
            receipt.leave(artifact)
    if left:
        receipt.save()
