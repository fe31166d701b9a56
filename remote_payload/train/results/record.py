"""``training_metadata.json``: how this model was made, in enough detail to repeat the training or to question it.

It has no host name, user name or token in it, and its paths are relative, since it is meant to be published with the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from remote_payload.forecast.memory import MemoryRecord
from remote_payload.train.data.facts import DataFact, FactRecord
from remote_payload.train.download import BaseFacts, BaseModel
from remote_payload.train.files import write_json
from remote_payload.train.folders import MANIFEST, ManifestFile, read_manifest
from remote_payload.train.model.model_facts import WeightsFacts
from remote_payload.train.results.identity import without_identity
from remote_payload.train.results.machine import CodeState, Hardware, code_state, hardware, libraries
from remote_payload.train.run import Run
from remote_payload.train.state.best import Weights, weights_facts
from remote_payload.train.state.progress import EpochFigures, EvaluationResult, Outcome

SCHEMA = 1
LEFT_OUT = {"host", "secrets", "variables"}  # of the job: addresses and what may be a credential


class TrainingRecord(TypedDict):
    """``training_metadata.json``."""

    schema: int
    run: dict[str, str | None]
    code: CodeState
    job: dict[str, Any]
    settings: dict[str, Any]
    libraries: dict[str, str | None]
    hardware: Hardware
    base_model: BaseFacts | None
    parameters: dict[str, int]
    data: list[FactRecord]  # an entry for each file (path, sha256, …) and for each side (its counts)
    batch: dict[str, int | str]
    seeds: dict[str, int | str]
    phases: list[dict[str, Any]]
    memory: dict[str, MemoryRecord | int | None]
    training: TrainingFigures
    results: dict[str, Any]
    artifacts: list[ManifestFile]


def write_record(
    run: Run, model: nn.Module, outcome: Outcome, weights: Weights | None, *,
    base: BaseModel | None, data: Sequence[DataFact], compared: Mapping[str, Mapping[str, float]] | None = None,
    memory_predicted: MemoryRecord | None = None,
) -> None:  # fmt: skip
    """Writes the record to ``outputs/training_metadata.json``; on other ranks than the main one it does nothing.

    ``weights`` are those of ``models/best``, ``compared`` the metrics on held-out data by model ("tuned", "base").
    """
    if not run.world.main:
        return
    settings = run.settings
    record: TrainingRecord = {
        "schema": SCHEMA,
        "run": {"id": run.id, "recipe": run.recipe, "resumed_from": run.resume, "ended": outcome.reason},
        "code": code_state(),
        "job": {key: value for key, value in run.job.items() if key not in LEFT_OUT},
        "settings": asdict(settings),
        "libraries": libraries(),
        "hardware": hardware(run.world.size),
        "base_model": base.as_dict() if base else None,
        "parameters": parameter_counts(model),
        "data": [fact.as_dict() for fact in data],
        "batch": {
            "effective": settings.batch.size,
            "micro_requested": settings.batch.micro,
            "micro_actual": outcome.progress.micro_batch_rows,
            "devices": run.world.size,
        },
        "seeds": {"seed": settings.seed, "rank_offset": "seed + rank"},
        "phases": run.phases,
        "memory": {"predicted": memory_predicted, "measured_peak_bytes": outcome.peak_memory or None},
        "training": training_figures(outcome),
        "results": {**results(outcome, weights), **(compared or {})},
        "artifacts": artifacts(run.outputs),
    }
    write_json(run.outputs / "training_metadata.json", without_identity(record, run))


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """How many parameters the model has, and how many of them are trained."""
    parameters = list(model.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
    }


class TrainingFigures(TypedDict):
    """How far training came, how fast it was, what it learnt from epoch to epoch, and every evaluation."""

    steps: int
    steps_planned: int
    tokens: int
    seconds: float
    tokens_per_second: float
    samples_per_second: float | None
    mfu: float | None
    first_loss: float | None
    last_loss: float | None
    epochs: list[EpochFigures]
    evaluations: list[EvaluationResult]


def training_figures(outcome: Outcome) -> TrainingFigures:
    """The figures of the whole training, in all processes that took part in it."""
    return {
        "steps": outcome.progress.step,
        "steps_planned": outcome.total,
        "tokens": outcome.progress.tokens,
        "seconds": round(outcome.seconds, 3),
        "tokens_per_second": outcome.tokens_per_second,
        "samples_per_second": outcome.samples_per_second,
        "mfu": outcome.mfu,
        "first_loss": outcome.progress.first_loss,
        "last_loss": outcome.progress.last_loss,
        "epochs": outcome.progress.epochs,
        "evaluations": outcome.progress.evaluations,
    }


def results(outcome: Outcome, weights: Weights | None) -> dict[str, EvaluationResult | WeightsFacts | None]:
    """The best and the last evaluation, and of which evaluation the weights in ``models/best`` are."""
    progress = outcome.progress
    return {
        "best": next((entry for entry in progress.evaluations if entry["step"] == progress.best_step), None),
        "last": next(iter(progress.evaluations[-1:]), None),
        "model": weights_facts(weights, outcome) if weights else None,
    }


def artifacts(outputs: Path) -> list[ManifestFile]:
    """Path, size and sha256 of every file in the complete folders of models and checkpoints."""
    found: list[ManifestFile] = []
    for path in sorted(outputs.glob(f"*/*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        for file in manifest["files"] if manifest else []:
            name = (path.parent / file["path"]).relative_to(outputs).as_posix()
            found.append({"path": name, "size": file["size"], "sha256": file["sha256"]})
    return found
