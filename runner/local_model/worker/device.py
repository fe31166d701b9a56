"""CPU, CUDA or Metal: which of them this machine has, and how to measure on it."""

from __future__ import annotations

import resource
import sys

import torch

from runner.local_model.worker import Refused


def choose(wanted: str) -> str:
    """The name of the device to use. Raises Refused when the wanted one is not there: a test that did not run has not passed."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, found in there.items() if found)
    if not there[wanted]:
        device = {"mps": "Metal (MPS)", "cuda": "CUDA"}[wanted]
        raise Refused(
            f"there is no {device} on this machine, so nothing was tested", "Use --device auto, or --device cpu."
        )
    return wanted


def synchronize(device: str) -> None:
    """Waits until the device has finished its work, so that a time that is read next includes it."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def name(device: str) -> str:
    """The GPU's product name, else the name of the device itself."""
    return str(torch.cuda.get_device_name()) if device == "cuda" else device


def peak_memory(device: str) -> int:
    """Bytes that were used at most: of the GPU's memory with CUDA, else of this process."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(most, int(torch.mps.driver_allocated_memory())) if device == "mps" else most
