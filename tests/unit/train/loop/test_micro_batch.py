from __future__ import annotations

from typing import Any

import pytest
import torch

from remote_payload.train.distributed import World
from remote_payload.train.errors import TrainingError
from remote_payload.train.loop import micro_batch
from remote_payload.train.loop.micro_batch import halved, largest_that_fits, out_of_memory

GIB = 2**30


def derived(
    monkeypatch: pytest.MonkeyPatch, share: int, row: float, sharded: bool = False, tried: list[int] | None = None
) -> int:
    """What is derived on a stand-in for a GPU of 24 GiB where each row takes ``row`` bytes; ``tried`` gets the sizes."""
    used, total = {"peak": 0.0}, 24 * GIB
    cuda = micro_batch.torch.cuda
    properties: Any = type("Properties", (), {"total_memory": total})
    monkeypatch.setattr(cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", lambda device: used.update(peak=0.0))
    monkeypatch.setattr(cuda, "max_memory_reserved", lambda device: used["peak"])
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda device: used["peak"])

    def attempt(size: int) -> None:
        if tried is not None:
            tried.append(size)
        if size * row > total:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        used["peak"] = size * row

    return largest_that_fits(World(0, 1, 0, torch.device("cuda", 0), sharded), share, 2048, attempt)


@pytest.mark.stand_in
@pytest.mark.parametrize(
    ("share", "row", "expected"),
    [
        (32, 1.5 * GIB, 8),
        (32, 0.1 * GIB, 32),
        (18, 0.1 * GIB, 18),
        (32, 0.72 * GIB, 16),
        (32, 23.9 * GIB, None),
        (1, GIB, 1),
    ],
)
def test_the_largest_that_fits_with_headroom_is_derived(
    share: int, row: float, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if expected is None:
        with pytest.raises(TrainingError, match="not even one row"):
            derived(monkeypatch, share, row)
    else:
        assert derived(monkeypatch, share, row) == expected


@pytest.mark.stand_in
def test_what_a_sharded_model_cannot_hold_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    assert derived(monkeypatch, 32, 1.7 * GIB, sharded=True, tried=tried) == 8
    assert tried == [1, 2, 4, 8]


@pytest.mark.parametrize(("share", "row", "expected"), [(32, 128, 32), (32, 512, 8), (2, 512, 2), (32, 10_000, 1)])
def test_on_a_cpu_it_is_a_number_of_tokens(share: int, row: int, expected: int) -> None:
    assert largest_that_fits(World(0, 1, 0, torch.device("cpu")), share, row, lambda size: None) == expected


def test_only_running_out_of_memory_counts_as_that() -> None:
    def fail(error: Exception) -> None:
        raise error

    assert out_of_memory(fail, torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(lambda: None)
    with pytest.raises(RuntimeError):
        out_of_memory(fail, RuntimeError("shapes do not match"))


def test_halving_ends_at_one() -> None:
    assert [halved(size, 1) for size in (8, 5, 2)] == [4, 2, 1]
    with pytest.raises(TrainingError, match="at step 7 with one row"):
        halved(1, 7)
