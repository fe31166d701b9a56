"""Trained models, built once; each test gets a copy that it may spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.models.smoke_models import causal_run, classifier_run


@pytest.fixture(scope="session")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}
    build = {
        "bert": lambda root: classifier_run(root, "bert", rank=0),
        "gemma3": lambda root: classifier_run(root, "gemma3"),
        "qwen2": lambda root: causal_run(root),
        "qwen2-recipe": lambda root: causal_run(root, generated=False),
        "qwen2-full": lambda root: causal_run(root, adapter=False),
    }

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            build[name](made[name])
        return made[name]

    return get


@pytest.fixture
def run_of(_runs: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """``run_of("gemma3")`` is a copy of a run's folder: the base model in ``base``, the trained one in ``models/best``."""
    return lambda name: Path(shutil.copytree(_runs(name), tmp_path / name))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
