"""``gpurun predict``: a model's predictions for whole files, on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remote_payload.settings.predict import PredictSettings
from runner.domain.errors import ArtifactError, UserError
from runner.domain.progress import Reporter
from runner.local_model.base import choose_dtype
from runner.local_model.messages import PredictRequest, PredictResult
from runner.local_model.process import model_process, show
from runner.workflow.inference.answering import answering, answering_of
from runner.workflow.inference.targets import find_target, make_ready

ELSEWHERE = "Predict on a machine with more memory."
KEPT = "What was predicted is kept beside the output: the same command goes on."
KINDS = {"classifier": "classifier", "sequence_classifier": "classifier", "causal_lm": "causal_lm"}


@dataclass(frozen=True)
class Prediction:
    """The model's name, kind and precision, how it was told to predict, and what came of it."""

    name: str
    kind: str
    dtype: str
    settings: PredictSettings
    result: PredictResult


def predict(
    word: str, settings: PredictSettings, told: Mapping[str, object], report: Reporter, *, device: str, dry_run: bool
) -> Prediction:
    """Predicts the files on this machine; with ``dry_run`` their rows are only read.

    ``told`` is what of ``settings.answering`` the user said; the rest is as the run's job says. Raises UserError for files and rows that
    cannot be used, and what ``find_target`` raises.
    """
    check_output(settings)
    ready = make_ready(find_target(word, report), report)
    model, run = ready.model, ready.target.run
    name = word if run is None else f"{run.run_id}:{model.folder.name}"
    kind = KINDS.get(model.kind)
    if kind is None:
        raise ArtifactError(f"{name} is an encoder alone: it has no classes and writes nothing")
    dtype = choose_dtype(model, ready.base, report, elsewhere=ELSEWHERE)
    settings = dataclasses.replace(settings, answering=answering(answering_of(run), told))
    request = PredictRequest(
        name, model.folder.absolute(), ready.base, kind, device, dtype, _absolute(settings), dry_run
    )
    title = f"check the rows for {name}" if dry_run else f"predict with {name}"
    with report.stage(title, "bytes") as stage, model_process(request, ArtifactError, meaning=KEPT) as process:
        result = process.receive(PredictResult, show(stage))
    return Prediction(name, kind, dtype, settings, result)


def check_output(settings: PredictSettings) -> None:
    """Raises UserError for an output that is there already, or has no folder to be in."""
    if Path(settings.output).exists():
        raise UserError(f"{settings.output} is there already", hint="Give another --output, or remove it.")
    if not Path(settings.output).absolute().parent.is_dir():
        raise UserError(f"there is no folder {Path(settings.output).absolute().parent}")


def _absolute(settings: PredictSettings) -> PredictSettings:
    """The same settings for a process with another working directory."""
    return dataclasses.replace(
        settings,
        input=[str(Path(each).expanduser().absolute()) for each in settings.input],
        output=str(Path(settings.output).expanduser().absolute()),
    )
