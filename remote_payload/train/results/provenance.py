"""``training_metadata.json``: what made this model, in enough detail to make it again or to doubt it.

No host name, user or token in it, and every path relative: the file is meant to be published with the model.
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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from remote_payload.train.data.facts import DataFact
from remote_payload.train.download import BaseFacts
from remote_payload.train.files import write_json
from remote_payload.train.folders import MANIFEST, read_manifest
from remote_payload.train.loop.task import Outcome
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


def write_metadata(
    run: Run, model: nn.Module, outcome: Outcome, *,
    base: BaseFacts | None, data: Sequence[DataFact], results: dict[str, Any],
    memory_predicted: dict[str, Any] | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Writes the record to ``outputs/training_metadata.json`` (main rank) and returns it.

    ``base`` names the base model with its commit and licence, ``data`` has an entry a file (path, sha256, rows) and one a side
    (tokens, texts cut), ``results`` the metrics of the run; ``more`` is added as it is.
    """
    parameters = list(model.parameters())
    settings = run.settings
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "run": {"id": run.id, "recipe": run.recipe, "resumed_from": run.resume, "ended": outcome.reason},
        "code": code_state(),
        "job": {key: value for key, value in run.job.items() if key not in LEFT_OUT},
        "settings": asdict(settings),
        "libraries": libraries(),
        "hardware": hardware(run.world.size),
        "base_model": base,
        "parameters": {"total": sum(p.numel() for p in parameters), "trained": sum(p.numel() for p in parameters if p.requires_grad)},
        "data": [fact.as_dict() for fact in data],
        "batch": {
            "effective": settings.batch.size,
            "micro_requested": settings.batch.micro,
            "micro_actual": outcome.progress.micro,
            "devices": run.world.size,
        },
        "seeds": {"seed": settings.seed, "rank_offset": "seed + rank"},
        "phases": run.phases,
        "memory": {"predicted": memory_predicted, "measured_peak_bytes": outcome.peak_memory or None},
        "training": {
            "steps": outcome.progress.step,
            "steps_planned": outcome.total,
            "tokens": outcome.progress.tokens,
            "seconds": round(outcome.seconds, 3),
            "tokens_per_second": outcome.tokens_per_second,
            "mfu": outcome.mfu,
            "evaluations": outcome.progress.evaluations,
        },
        "results": results,
        **more,
        "artifacts": artifacts(run.outputs),
    }  # fmt: skip
    record = without_identity(record, run)
    if run.world.main:
        write_json(run.outputs / "training_metadata.json", record)
    return record


def code_state() -> dict[str, Any]:
    """A hash of the training code itself, and git's commit and dirty diff where the working directory is a repository."""
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
    """Versions of what took part; CUDA's is the one that torch was built for."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def hardware(devices: int) -> dict[str, Any]:
    """Processor, memory and GPUs; nothing that tells one machine from another of its kind."""
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


def artifacts(outputs: Path) -> list[dict[str, Any]]:
    """Path, size and sha256 of every file in the complete folders of models and checkpoints."""
    found = []
    for manifest in sorted(outputs.glob(f"*/*/{MANIFEST}")):
        folder = manifest.parent
        for file in (read_manifest(folder) or {"files": []})["files"]:
            found.append({**file, "path": (folder / file["path"]).relative_to(outputs).as_posix()})
    return found


def without_identity(value: Any, run: Run) -> Any:
    """The same with paths made relative and every mention of this host, this user's home and name, and tokens taken out."""
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
