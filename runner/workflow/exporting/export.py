"""``gpurun export``: a trained model in a form that other tools load, tested before it gets its name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.files import writing
from runner.local_model.compare import Comparison
from runner.local_model.model_folder import find_models, read_model_folder
from runner.workflow.exporting.merged import merge
from runner.workflow.exporting.refusals import refuse_what_cannot_be_merged
from runner.workflow.inference.base_model import bring_base

MERGED = "merged"


@dataclass(frozen=True)
class Wanted:
    """What to export. ``dtype`` is that of the weights, None for the model's own; ``into`` the folder for all of it."""

    into: Path
    dtype: str | None = None


@dataclass(frozen=True)
class Export:
    """One form of the model that was written and passed its test. ``weights`` is their dtype, ``size`` in bytes.

    ``merged_layers`` is how many layers had an adapter. ``by_box`` tells whether it was compared with predictions of the box, or with
    what the model predicted on this machine before it was exported.
    """

    form: str
    path: Path
    weights: str
    size: int
    merged_layers: int
    by_box: bool
    comparison: Comparison


def export(target: Path, run: Run | None, wanted: Wanted, report: Reporter) -> list[Export]:
    """Writes the model of ``target``, a fetched run or a model's folder, in each form that is wanted.

    A form gets its name once it predicts what the model predicted; one that does not raises SmokeTestFailed, and nothing of it stays.
    Raises UserError and ArtifactError for what cannot be exported, before it is merged.
    """
    _refuse_existing(wanted.into / MERGED)
    with report.stage("inspect"):
        model = read_model_folder(_only_model(target))
        refuse_what_cannot_be_merged(model)
    base = bring_base(model, run, report)
    with _staging(wanted.into) as staging:
        whole = merge(model, base, staging / MERGED, wanted.dtype, report)
        final = wanted.into / MERGED
        os.rename(staging / MERGED, final)
    by_box = model.reference is not None
    return [Export(MERGED, final, whole.dtype, _size(final), whole.layers, by_box, whole.comparison)]


def default_folder(target: Path, run: Run | None) -> Path:
    """Where an export goes that no folder was named for: in the folder where the command is typed."""
    return Path(f"{run.run_id if run else target.name or 'model'}-export")


def _only_model(target: Path) -> Path:
    if not target.is_dir():
        raise UserError(f"there is no folder {target}")
    found = find_models(target)
    if len(found) > 1:
        named = ", ".join(str(folder.relative_to(target)) for folder in found[:5])
        raise UserError(f"{target} has {len(found)} models: {named}", hint="Name the folder of one of them.")
    return found[0]


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(
            f"{path} is there already",
            meaning="Nothing was exported: what is there is not overwritten.",
            hint="Remove it, or name another folder: --into DIR.",
        )


@contextmanager
def _staging(into: Path) -> Iterator[Path]:
    """A folder inside ``into`` for what is not complete or not tested yet; it is removed, and ``into`` too where nothing came of it."""
    made = not into.exists()
    with writing(into):
        into.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".export-", dir=into))
    try:
        with writing(into):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if made and not any(into.iterdir()):
            into.rmdir()


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)
