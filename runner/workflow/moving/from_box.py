"""Outputs that pass this machine on their way from a run's old box to its new one. What is home is not copied again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from runner.domain.answers.manifest import Artifact
from runner.domain.answers.verbs import Kept
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport.link import Link
from runner.workflow.fetch import bring
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.moving.home import AUTO, Outputs, choose, needs_checkpoint, without_others


def newer_on_box(
    link: Link, run: Run, wanted: str, at_home: Outputs | None, passing: Path, report: Reporter
) -> Outputs | None:
    """What the box has of a run that is over, brought to ``passing`` and verified; None where as much is home.

    Files that are home already are hard links there. Raises UserError for a checkpoint that cannot be resumed, and as ``fetch`` does.
    """
    listed = link.agent.checkpoints(run.run_id)
    chosen = choose(listed, wanted)
    if chosen is None and (wanted != AUTO or needs_checkpoint(run)):
        return None
    if at_home and at_home.checkpoint and (chosen is None or not _is_newer(chosen, at_home.checkpoint)):
        return None
    manifest = link.agent.manifest(run.run_id, everything=True)
    by_path = {artifact.path: artifact for artifact in manifest.files}
    needed = [by_path[path] for path in without_others(run, by_path, listed, chosen)]
    if not needed or (at_home and all(at_home.files.get(each.path) == each.sha256 for each in needed)):
        return None
    _link_what_is_home(run, needed, passing)
    bring(link, run, [needed], passing, report)
    return Outputs(passing, {each.path: each.sha256 for each in needed}, chosen)


def _is_newer(there: Kept, here: Kept) -> bool:
    """Whether the box's checkpoint is a later one. A copy has the same time in whole seconds."""
    return (there.step or 0, int(there.at or 0)) > (here.step or 0, int(here.at or 0))


def _link_what_is_home(run: Run, needed: list[Artifact], passing: Path) -> None:
    """Where links are not possible (another disk), the file is brought once more."""
    verified = Receipt(run.outputs_here).verified()
    for artifact in needed:
        if verified.get(artifact.path) == artifact.sha256:
            (passing / artifact.path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(OSError):
                os.link(run.outputs_here / artifact.path, passing / artifact.path)
