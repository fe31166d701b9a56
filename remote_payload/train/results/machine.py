"""What trained a model: the code, the versions of the libraries, and the kind of machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TypedDict

import torch

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
MAX_DIFF = 200_000  # characters
DRIVER = Path("/proc/driver/nvidia/version")


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
    driver: str | None
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
        "driver": _driver(),
        "devices_used": devices,
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver, from the first line of its file: ``NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  …``."""
    try:
        told = DRIVER.read_text(encoding="utf-8")
    except OSError:
        return None
    version = re.search(r"Kernel Module\b.*?\s(\d+\.[\d.]+)", told)
    return version[1] if version else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
