"""The whole model in safetensors: the adapter merged into its base, then loaded again and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.domain.errors import ArtifactError, SmokeTestFailed
from runner.domain.progress import Reporter
from runner.files import read_json
from runner.local_model.base import choose_dtype
from runner.local_model.compare import Comparison
from runner.local_model.messages import Exported, ExportRequest, PromptForm
from runner.local_model.model_folder import CONFIG, ModelFolder, dtype_named
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
    request = ExportRequest(smoke_request(model, base, loaded, "cpu"), into.absolute(), stored, questions, form)
    with (
        report.stage("merge" if model.adapter else "write") as stage,
        model_process(request, ArtifactError, meaning="Nothing was exported.") as process,
    ):
        exported = process.receive(Exported, show(stage))
    tested = test_model(into, report, device="cpu", rounded_to=stored)
    assert tested.comparison  # the process has written predictions beside the weights
    raise_for("the whole model", tested.comparison, by_box=model.reference is not None)
    return Whole(stored, exported.merged, exported.form, tested.comparison)


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
