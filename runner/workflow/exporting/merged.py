"""A model in safetensors: whole, its adapter merged, or a checkpoint as the finished model; then loaded again and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from remote_payload.publish.contents import is_checkpoint
from runner.domain.errors import ArtifactError, SmokeTestFailed
from runner.domain.progress import Reporter, Stage
from runner.domain.run import Run
from runner.files import read_json
from runner.local_model.base import choose_dtype
from runner.local_model.compare import Comparison
from runner.local_model.messages import Exported, ExportRequest, PromptForm
from runner.local_model.model_folder import CONFIG, INPUTS, ModelFolder, dtype_named
from runner.local_model.process import model_process, show
from runner.workflow.inference.smoke import smoke_request, test_model

ELSEWHERE = "Export it on a machine with more memory."


@dataclass(frozen=True)
class Whole:
    """A model that was merged, and tested: the dtype of its weights, how many layers had an adapter, how it is asked, how close it is."""

    dtype: str
    layers: int
    form: PromptForm | None
    comparison: Comparison


def merge(
    model: ModelFolder,
    base: Path | None,
    into: Path,
    dtype: str | None,
    report: Reporter,
    *,
    questions: Path | None = None,
    form: bool = False,
) -> Whole:
    """Writes the whole model to the new folder ``into``, its weights in ``dtype`` (None: in the dtype that they have).

    ``questions`` is where the predictions go in numbers, for llama.cpp; ``form`` asks for the ``PromptForm``. What is added up is added in
    float32 where memory allows it, and rounded once. Raises ArtifactError for what a whole model cannot hold, SmokeTestFailed where the
    result predicts something else.
    """
    stored = dtype or _own_dtype(model, base)
    loaded = choose_dtype(model, base, report, elsewhere=ELSEWHERE)
    source = smoke_request(model, base, loaded, "cpu", _rows(model))
    request = ExportRequest(source, into.absolute(), stored, questions, form)
    with report.stage("merge" if model.adapter else "write") as stage:
        exported = _write(request, stage)
    comparison = _test(into, stored, report)
    raise_for("the whole model", comparison, by_box=model.reference is not None)
    return Whole(stored, exported.merged, exported.form, comparison)


def finish(
    model: ModelFolder, base: Path | None, into: Path, title: str, report: Reporter, *, run: Run | None = None
) -> Whole:
    """Writes a checkpoint to the new folder ``into`` as the finished model that ``models/best`` is; ``title`` is its card's.

    It is asked what the box was asked, where the run's finished model was fetched too, and compared with what the checkpoint itself
    predicts here. Raises as ``merge``.
    """
    stored, loaded = _own_dtype(model, None), choose_dtype(model, base, report, elsewhere=ELSEWHERE)
    source = smoke_request(model, base, loaded, "cpu", _rows(model))
    with report.stage(f"convert {model.folder.name}") as stage:
        _write(ExportRequest(source, into.absolute(), stored, title=title), stage)
    comparison = _test(into, "float32" if model.adapter else stored, report, run=run)
    raise_for("the model of the checkpoint", comparison, by_box=False)
    return Whole(stored, 0, None, comparison)


def _write(request: ExportRequest, stage: Stage) -> Exported:
    with model_process(request, ArtifactError, meaning="Nothing was exported.") as process:
        return process.receive(Exported, show(stage))


def _test(folder: Path, rounded_to: str, report: Reporter, *, run: Run | None = None) -> Comparison:
    """What was written beside the predictions that the process wrote with it."""
    tested = test_model(folder, report, run=run, device="cpu", rounded_to=rounded_to)
    assert tested.comparison
    return tested.comparison


def _rows(model: ModelFolder) -> Path | None:
    """What to ask a checkpoint: what the box asked the finished model of its run, where that is here; else a few texts of ours."""
    rows = model.folder.absolute().parent.parent / "models" / "best" / INPUTS
    return rows if is_checkpoint(model.folder) and rows.is_file() else None


def raise_for(what: str, comparison: Comparison, *, by_box: bool) -> None:
    """Raises SmokeTestFailed where ``what`` was exported predicts something else than the model did before."""
    if comparison.problems:
        whose = "what the model predicted on the box" if by_box else "what the model predicts before it is exported"
        raise SmokeTestFailed(
            f"{what} does not predict {whose}\n" + "\n".join(comparison.problems),
            meaning="It was removed: nothing of it was exported.",
            hint="gpurun smoke-test tells whether the model itself is as on the box.",
        )


def _own_dtype(model: ModelFolder, base: Path | None) -> str:
    """The dtype of the weights: of a plain adapter its base's, since peft does not write it down."""
    if model.described or base is None:
        return model.dtype
    config = read_json(base / CONFIG)
    return dtype_named(config.get("dtype") or config.get("torch_dtype"))
