"""``training_metadata.json``: how this model was made, in enough detail to repeat the training or to question it.

It has no host name, user name or token in it, and its paths are relative, since it is meant to be published with the model.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from remote_payload.forecast.memory import MemoryRecord
from remote_payload.train.data.facts import DataFact, FactRecord
from remote_payload.train.download import BaseFacts, BaseModel
from remote_payload.train.files import write_json
from remote_payload.train.folders import MANIFEST, ManifestFile, read_manifest
from remote_payload.train.loop.best import Weights, weights_facts
from remote_payload.train.loop.progress import EvaluationResult, Outcome
from remote_payload.train.model.model_facts import WeightsFacts
from remote_payload.train.run import Run

SCHEMA = 1
LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "huggingface_hub",
    "tensorboard",
)
LEFT_OUT = {"host", "secrets", "variables"}  # of the job: addresses and what may be a credential
MAX_DIFF = 200_000  # characters
TOKEN = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|glpat-|AKIA)[A-Za-z0-9_-]{8,}")


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


def write_metadata(
    run: Run, model: nn.Module, outcome: Outcome, weights: Weights | None, *,
    base: BaseModel | None, data: Sequence[DataFact], compared: Mapping[str, Mapping[str, float]] | None = None,
    memory_predicted: MemoryRecord | None = None,
) -> None:  # fmt: skip
    """Writes the record to ``outputs/training_metadata.json`` (main rank).

    ``weights`` are those of ``models/best``, ``compared`` the metrics on held-out data by model ("tuned", "base").
    """
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
    if run.world.main:
        write_json(run.outputs / "training_metadata.json", without_identity(record, run))


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """How many parameters the model has, and how many of them are trained."""
    parameters = list(model.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
    }


class TrainingFigures(TypedDict):
    """How far training came, how fast it was, and every evaluation."""

    steps: int
    steps_planned: int
    tokens: int
    seconds: float
    tokens_per_second: float
    mfu: float | None
    evaluations: list[EvaluationResult]


def training_figures(outcome: Outcome) -> TrainingFigures:
    """The figures of the whole training, in all processes that took part in it."""
    return {
        "steps": outcome.progress.step,
        "steps_planned": outcome.total,
        "tokens": outcome.progress.tokens,
        "seconds": round(outcome.seconds, 3),
        "tokens_per_second": outcome.tokens_per_second,
        "mfu": outcome.mfu,
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


class CodeState(TypedDict):
    """The code that trained: a hash of this package, and git's view of the working directory, None outside a repository."""

    payload_sha256: str
    git_commit: str | None
    git_dirty: bool | None
    git_diff: str | None


def code_state() -> CodeState:
    """A hash of the training code, and git's commit and uncommitted changes where the working directory is a repository."""
    package = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(
        p for part in ("train", "recipes", "settings", "forecast") for p in (package / part).rglob("*.py")
    ):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    diff = _git("diff", "HEAD")
    return {
        "payload_sha256": digest.hexdigest(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(diff) if diff is not None else None,
        "git_diff": diff[:MAX_DIFF] if diff else None,
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def libraries() -> dict[str, str | None]:
    """Versions of Python and the libraries; CUDA's is the one that torch was built for."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


class Gpu(TypedDict):
    """A GPU of this machine."""

    name: str
    memory_bytes: int


class Hardware(TypedDict):
    """The kind of machine; nothing in it tells one machine from another of its kind."""

    platform: str
    processor: str
    cpus: int | None
    memory_bytes: int
    gpus: list[Gpu]
    devices_used: int


def hardware(devices: int) -> Hardware:
    """Processor, memory and GPUs of this machine, of which training used ``devices``."""
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "devices_used": devices,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def artifacts(outputs: Path) -> list[ManifestFile]:
    """Path, size and sha256 of every file in the complete folders of models and checkpoints."""
    found: list[ManifestFile] = []
    for path in sorted(outputs.glob(f"*/*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        for file in manifest["files"] if manifest else []:
            found.append({**file, "path": (path.parent / file["path"]).relative_to(outputs).as_posix()})
    return found


def without_identity(value: Any, run: Run) -> Any:
    """The value with paths made relative, and without this host's name, this user's name and home, and tokens."""
    paths = {str(run.outputs.resolve().parent): ".", str(Path.cwd()): ".", str(Path.home()): "~"}
    words = {socket.gethostname(): "<host>", _user(): "<user>"}
    return _scrub(
        value,
        {k: v for k, v in paths.items() if len(k) > 1},
        {k: v for k, v in words.items() if len(k) > 2 and k != "root"},
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as containers have
        return ""


def _scrub(value: Any, paths: dict[str, str], words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_scrub(key, paths, words): _scrub(item, paths, words) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub(item, paths, words) for item in value]
    if not isinstance(value, str):
        return value
    for path, short in sorted(paths.items(), key=lambda pair: -len(pair[0])):
        value = value.replace(path, short)
    for word, instead in words.items():
        value = re.sub(rf"(?<![A-Za-z0-9_-]){re.escape(word)}(?![A-Za-z0-9_-])", instead, value)
    return TOKEN.sub("<token>", value)
