"""CPU, CUDA or Metal: which is there, and how to measure on it."""

from __future__ import annotations

import resource
import sys

import torch

from runner.local_model.worker import Refused


def choose(asked: str) -> str:
    """The device to use. Raises Refused when the one asked for is not there: a test that did not run is not passed."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(device for device, found in there.items() if found)
    if not there[asked]:
        device = {"mps": "Metal (MPS)", "cuda": "CUDA"}[asked]
        raise Refused(
            f"there is no {device} on this machine, so nothing was tested", "Use --device auto, or --device cpu."
        )
    return asked


def synchronize(device: str) -> None:
    """Waits for what was started on the device, so that a clock read next is true."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


def peak_memory(device: str) -> int:
    """Bytes: of the GPU where it has memory of its own, else of this process."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(most, int(torch.mps.driver_allocated_memory())) if device == "mps" else most
