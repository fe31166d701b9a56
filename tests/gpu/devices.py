"""The GPU under test: a real one, or the null GPU where LD_PRELOAD has put one (docs/null-gpu.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tests.gpu.waits import CountingMode, Waits


class RealDevice:
    """A GPU that computes. Its operators are counted as they run."""

    real = True

    def __init__(self) -> None:
        self.waits = Waits()

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()

    def restart_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    @contextmanager
    def limited_to(self, size: int) -> Iterator[None]:
        """Inside, there are so many bytes of memory."""
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(size / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        torch.cuda.empty_cache()
        with CountingMode(self.waits):
            yield


class NullDevice:
    """The null GPU, empty at first."""

    real = False

    def __init__(self) -> None:
        from tests.gpu.null.mode import NullGpu

        self.mode = NullGpu()
        self.waits = self.mode.waits

    @property
    def peak(self) -> int:
        return self.mode.memory.peak

    def restart_peak(self) -> None:
        self.mode.memory.restart_peak()

    @contextmanager
    def limited_to(self, size: int) -> Iterator[None]:
        """Inside, there are so many bytes of memory."""
        before, self.mode.memory.capacity = self.mode.memory.capacity, size
        try:
            yield
        finally:
            self.mode.memory.capacity = before

    @contextmanager
    def running(self) -> Iterator[None]:
        from tests.gpu.null.seams import null_gpu

        with null_gpu(self.mode):
            yield


def why_not() -> str | None:
    """Why there is no GPU to test on, and what to type; None where there is one."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} here is no CUDA build; `make null-gpu` brings one and needs no GPU"
    if not torch.cuda.is_available():
        return "no GPU here; `make null-gpu` puts one in its place that computes nothing"
    return None


def is_null() -> bool:
    return "Null" in torch.cuda.get_device_name(0)
