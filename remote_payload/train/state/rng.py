"""The state of every random number generator that training uses, as tensors, so that it can be stored without a pickle."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seeds torch (all devices), numpy and random; ranks differ, so that their dropout does."""
    random.seed(seed + rank)
    numpy.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def capture() -> dict[str, Tensor]:
    """The present state: ``torch`` and ``cuda`` bytes, ``python`` and ``numpy`` words, and the spare Gaussian that both keep."""
    _, words, spare = random.getstate()
    numpy_state: Any = numpy.random.get_state()  # its types allow a dict too, which only legacy=False gives
    _, keys, position, has_spare, cached = numpy_state
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.tensor([*keys.tolist(), position, has_spare], dtype=torch.int64),
        "spare": torch.tensor([math.nan if spare is None else spare, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Tensor]) -> None:
    """Restores a captured state. From a machine with another device only the generators that both have are restored."""
    torch.set_rng_state(state["torch"])
    spare, cached = state["spare"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), None if math.isnan(spare) else spare))
    *keys, position, has_spare = state["numpy"].tolist()
    numpy.random.set_state(("MT19937", numpy.array(keys, dtype=numpy.uint32), position, has_spare, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved() -> Iterator[None]:
    """Restores the generators afterwards, whatever was drawn inside: an evaluation must not change training."""
    state = capture()
    try:
        yield
    finally:
        restore(state)
