"""Host memory: how much of it is free, and the part of it that a checkpoint is copied to before it is written."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

PIECE = 64 * 2**20  # bytes of a buffer; torch rounds pinned memory up to a power of two, which this is
SPARE = 256 * 2**20  # bytes that stay free, and a tenth of what is taken
CGROUP, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/meminfo")
# The files of a control group: its limit, what it uses, and the counter of file cache in it that can be dropped.
VERSIONS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available() -> int | None:
    """Bytes that this process can still take: what the machine has, and what its container's limit leaves. None if unknown."""
    limits = [free for free in (_of_machine(), _of_container()) if free is not None]
    return min(limits) if limits else None


def _of_machine() -> int | None:
    kilobytes = _counters(MEMINFO).get("MemAvailable:")
    return kilobytes * 1024 if kilobytes is not None else None


def _of_container() -> int | None:
    for limit_file, used_file, counters, dropped in VERSIONS:
        limit, used = _number(CGROUP / limit_file), _number(CGROUP / used_file)
        if limit is not None and used is not None:
            return limit - used + _counters(CGROUP / counters).get(dropped, 0)
    return None


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none ("max": no limit)."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _counters(path: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) >= 2 and words[1].isdigit()}


class HostBuffers:
    """Host memory for one copy of what a checkpoint holds, taken once and used by every save; pinned where the device is a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.pinned = device.type == "cuda"
        self.buffers: list[Tensor] = []

    def reserve(self, sizes: list[int]) -> str | None:
        """Takes buffers for files of these sizes, none of which shares a buffer. Why that failed; None if they are there."""
        missing = sum(-(-size // PIECE) for size in sizes) - len(self.buffers)
        more, size, free = missing * PIECE, sum(sizes), available()
        if missing > 0 and free is not None and free < min(more, size) * 11 // 10 + SPARE:
            return f"a copy takes {size / 2**20:,.0f} MiB of host memory and {free / 2**20:,.0f} MiB are free"
        try:
            self.buffers += [self._taken() for _ in range(missing)]
        except RuntimeError as error:  # torch's error where the system gives no memory
            self.release()
            return f"a copy takes {size / 2**20:,.0f} MiB of host memory: {str(error).splitlines()[0]}"
        return None

    def one(self) -> Tensor:
        """A single buffer, for a file that is written while it is copied."""
        return self.buffers[0] if self.buffers else self._taken()

    def _taken(self) -> Tensor:
        return torch.empty(PIECE, dtype=torch.uint8, pin_memory=self.pinned)

    def release(self) -> None:
        """Gives the memory back."""
        self.buffers.clear()
        if self.pinned and hasattr(torch.accelerator, "empty_host_cache"):  # since torch 2.10
            torch.accelerator.empty_host_cache()
