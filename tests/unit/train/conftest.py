"""Model folders are built once a session: training a tokenizer takes longer than using it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.models.tiny_models import save_tiny_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny_folder("gemma3")`` is a folder with that tiny model and its tokenizer; treat it as read-only."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            made[name] = save_tiny_model(name, tmp_path_factory.mktemp(name))
        return made[name]

    return build


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two cores are shared with other tests, and bit-for-bit comparisons need one order of summation."""
    torch.set_num_threads(1)
