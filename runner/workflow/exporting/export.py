"""``gpurun export``: a trained model in a form that other tools load, tested before it gets its name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote_payload.publish.contents import is_checkpoint
from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.files import writing
from runner.local_model.compare import Comparison
from runner.local_model.llama_cpp.convert import convert
from runner.local_model.model_folder import read_model_folder
from runner.workflow.exporting.gguf import (
    find_converter,
    refuse_no_language_model,
    refuse_unknown,
    write_gguf,
)
from runner.workflow.exporting.merged import Whole, finish, merge, raise_for
from runner.workflow.exporting.ollama import MODELFILE, modelfile
from runner.workflow.exporting.refusals import refuse_no_checkpoint, refuse_what_cannot_be_merged
from runner.workflow.inference.answering import answering_of
from runner.workflow.inference.base_model import bring_base
from runner.workflow.inference.targets import TargetHere

MERGED, PLAIN = "merged", "plain"


@dataclass(frozen=True)
class Wanted:
    """What to export: the whole model (``merged``), GGUF files of these quantisations, Ollama's Modelfile for the first; of a checkpoint
    the finished model, an adapter not merged (``plain``).

    ``dtype`` is that of the weights, None for the model's own; ``into`` the folder for all of it.
    """

    into: Path
    merged: bool = True
    gguf: tuple[str, ...] = ()
    ollama: bool = False
    dtype: str | None = None
    plain: bool = False

    def gguf_files(self) -> dict[str, Path]:
        """Each quantisation's file."""
        name = self.into.absolute().name
        return {quantisation: self.into / f"{name}-{quantisation}.gguf" for quantisation in self.gguf}

    def paths(self) -> list[Path]:
        """All that will be written; a Modelfile names the first."""
        merged, ollama = [self.into / MERGED] * self.merged, [self.into / MODELFILE] * self.ollama
        return [*self.gguf_files().values(), *merged, *ollama, *[self.into / PLAIN] * self.plain]

    @property
    def whole(self) -> bool:
        """Whether any form needs the merged model."""
        return self.merged or bool(self.gguf) or self.ollama


@dataclass(frozen=True)
class Export:
    """One form of the model that was written and passed its test: ``merged``, ``gguf``, ``ollama`` or ``plain``.

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
    """Writes the model in the folder ``target``, of ``run``, in each form that is wanted.

    A form gets its name once it predicts what the model predicted; one that does not raises SmokeTestFailed, and nothing of it stays.
    Raises UserError and ArtifactError for what cannot be exported, before it is merged.
    """
    _refuse_existing(wanted)
    with report.stage("inspect"):
        model = read_model_folder(target)
        if wanted.plain:
            refuse_no_checkpoint(model)
        if wanted.whole:
            refuse_what_cannot_be_merged(model)
        if wanted.gguf or wanted.ollama:
            refuse_no_language_model(model)
    converter = find_converter(report) if wanted.gguf else None
    base = bring_base(model, run, report)
    if converter:
        refuse_unknown(model, base, converter, report)
    with _staging(wanted.into) as staging:
        made: list[Export] = []

        def add(form: str, path: Path, whole: Whole, comparison: Comparison, weights: str = "") -> None:
            os.rename(staging / path.name, path)
            by_box = model.reference is not None
            made.append(Export(form, path, weights or whole.dtype, _size(path), whole.layers, by_box, comparison))

        if wanted.plain:
            title = f"{run.job.name}, {target.name}" if run else target.name
            plain = finish(model, base, staging / PLAIN, title, report, run=run)
            add(PLAIN, wanted.into / PLAIN, plain, plain.comparison)
        if not wanted.whole:
            return made
        folder, questions = staging / MERGED, staging.absolute() / "questions.jsonl"
        whole = merge(
            model, base, folder, wanted.dtype, report, questions=questions if converter else None, form=wanted.ollama
        )
        source = wanted.paths()[0]
        text = modelfile(source, whole.form, answering_of(run)) if whole.form else None
        if converter:
            wide = staging / "wide.gguf"
            with report.stage("convert to GGUF"):
                convert(converter.command, folder, whole.dtype, wide)
            for name, file in wanted.gguf_files().items():
                found = write_gguf(converter, wide, whole.dtype, name, staging / file.name, questions, report)
                raise_for(file.name, found, by_box=model.reference is not None)
                add("gguf", file, whole, found, name)
        if wanted.merged:
            add(MERGED, wanted.into / MERGED, whole, whole.comparison)
        if text is not None:
            (staging / MODELFILE).write_text(text, "utf-8")
            first = next(each for each in made if each.path == source)
            add("ollama", wanted.into / MODELFILE, whole, first.comparison, first.weights)
    return made


def default_folder(target: TargetHere) -> Path:
    """Where an export goes that no folder was named for: in the folder where the command is typed."""
    name = target.run.run_id if target.run else Path(target.named).expanduser().absolute().name or "model"
    checkpoint = f"-{target.folder.name}" if target.run and is_checkpoint(target.folder) else ""
    return Path(f"{name}{checkpoint}-export")


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
