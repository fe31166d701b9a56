"""How much memory a model takes on this device while it is used."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> None:
    """Begins to measure. Where the system cannot forget (macOS), the peak is that of the process so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        CLEAR.write_text("5", encoding="ascii")  # VmHWM begins again at what is used now (man 5 proc)


def peak_bytes(device: torch.device) -> int:
    """Bytes used at most since ``forget_peak``: of the GPU's memory with CUDA, of Metal's with MPS, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    with suppress(OSError):
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
