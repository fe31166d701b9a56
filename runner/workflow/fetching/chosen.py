"""``fetch --best``: what comes home when only the chosen model of a run is wanted."""

from __future__ import annotations

import posixpath

from runner.domain.answers.manifest import Manifest
from runner.domain.answers.results import CHOSEN
from runner.domain.errors import ManifestMissing
from runner.domain.run import Run

OTHERS = ("checkpoints", posixpath.dirname(CHOSEN))  # the folders of a recipe's outputs that hold weights


def only_chosen(run: Run, manifest: Manifest) -> Manifest:
    """The chosen model, and what is neither a model nor a checkpoint: reports, logs, the record of the training.

    Raises ManifestMissing for a run that has no chosen model, or none yet.
    """
    if f"{CHOSEN}/manifest.json" not in {file.path for file in manifest.files}:
        raise ManifestMissing(
            f"{run.run_id} has no chosen model ({CHOSEN}){'' if manifest.complete else ' yet'}",
            meaning="Nothing was fetched." if manifest.complete else "Nothing was fetched; the run goes on.",
            hint=f"gpurun checkpoints {run.run_id} lists what it has; gpurun fetch {run.run_id} brings all of it.",
        )
    wanted = tuple(file for file in manifest.files if _is_wanted(file.path))
    return Manifest(manifest.complete, wanted, manifest.left_out)


def _is_wanted(path: str) -> bool:
    return path.startswith(f"{CHOSEN}/") or path.partition("/")[0] not in OTHERS
