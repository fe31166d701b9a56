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
from runner.local_model.llama_cpp.convert import convert
from runner.local_model.model_folder import find_models, read_model_folder
from runner.workflow.exporting.gguf import (
    find_converter,
    refuse_no_language_model,
    refuse_unknown,
    write_gguf,
)
from runner.workflow.exporting.merged import merge, raise_for
from runner.workflow.exporting.ollama import MODELFILE, generation_of, modelfile
from runner.workflow.exporting.refusals import refuse_what_cannot_be_merged
from runner.workflow.inference.base_model import bring_base

MERGED = "merged"


@dataclass(frozen=True)
class Wanted:
    """What to export: the whole model (``merged``), GGUF files of these quantisations, Ollama's Modelfile for the first.

    ``dtype`` is that of the weights, None for the model's own; ``into`` the folder for all of it.
    """

    into: Path
    merged: bool = True
    gguf: tuple[str, ...] = ()
    ollama: bool = False
    dtype: str | None = None

    def gguf_files(self) -> dict[str, Path]:
        """Each quantisation's file."""
        name = self.into.absolute().name
        return {quantisation: self.into / f"{name}-{quantisation}.gguf" for quantisation in self.gguf}

    def paths(self) -> list[Path]:
        """All that will be written; a Modelfile names the first."""
        merged, ollama = [self.into / MERGED] * self.merged, [self.into / MODELFILE] * self.ollama
        return [*self.gguf_files().values(), *merged, *ollama]


@dataclass(frozen=True)
class Export:
    """One form of the model that was written and passed its test: ``merged``, ``gguf`` or ``ollama``.

    ``weights`` is their dtype or quantisation, ``size`` in bytes, ``merged_layers`` how many layers had an adapter. ``by_box`` tells
    whether it was compared with predictions of the box, or with what the model predicted on this machine before it was exported. A
    Modelfile has the comparison of the weights that it names.
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
    _refuse_existing(wanted)
    with report.stage("inspect"):
        model = read_model_folder(_only_model(target))
        refuse_what_cannot_be_merged(model)
        if wanted.gguf or wanted.ollama:
            refuse_no_language_model(model)
    converter = find_converter(report) if wanted.gguf else None
    base = bring_base(model, run, report)
    if converter:
        refuse_unknown(model, base, converter, report)
    with _staging(wanted.into) as staging:
        folder, questions = staging / MERGED, staging.absolute() / "questions.jsonl"
        whole = merge(
            model, base, folder, wanted.dtype, report, questions=questions if converter else None, form=wanted.ollama
        )
        source = wanted.paths()[0]
        text = modelfile(source, whole.form, generation_of(run)) if whole.form else None
        made = []

        def add(form: str, path: Path, weights: str, comparison: Comparison) -> None:
            os.rename(staging / path.name, path)
            made.append(Export(form, path, weights, _size(path), whole.layers, model.reference is not None, comparison))

        if converter:
            wide = staging / "wide.gguf"
            with report.stage("convert to GGUF"):
                convert(converter.command, folder, whole.dtype, wide)
            for name, file in wanted.gguf_files().items():
                found = write_gguf(converter, wide, whole.dtype, name, staging / file.name, questions, report)
                raise_for(file.name, found, by_box=model.reference is not None)
                add("gguf", file, name, found)
        if wanted.merged:
            add(MERGED, wanted.into / MERGED, whole.dtype, whole.comparison)
        if text is not None:
            (staging / MODELFILE).write_text(text, "utf-8")
            add("ollama", wanted.into / MODELFILE, made[0].weights, made[0].comparison)
    return made


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


def _refuse_existing(wanted: Wanted) -> None:
    there = next((path for path in wanted.paths() if path.exists()), None)
    if there:
        raise UserError(
            f"{there} is there already",
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
