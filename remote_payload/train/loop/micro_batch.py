"""How many rows of full length fit one device at once: the search, and what an OOM changes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from remote_payload.train.distributed import World
from remote_payload.train.errors import TrainingError

ON_CPU = 4096  # tokens: enough to keep a few cores busy, few enough not to fill the memory of a small machine
HEADROOM = 0.92  # share of the device's memory that the probe may use; fragmentation grows later


def largest_that_fits(world: World, share: int, row: int, attempt: Callable[[int], None]) -> int:
    """The largest power of two of rows, up to ``share`` (this rank's part of the effective batch), for which ``attempt`` fits.

    ``attempt(size)`` makes an optimizer step, as later ones will be, on the longest rows there are, of ``row`` tokens each, and
    undoes it. On a CPU, which has no such limit, it is a number of tokens. All ranks get the same answer.
    Raises TrainingError when not even one row fits.
    """
    if world.device.type != "cuda":
        return max(1, min(share, ON_CPU // row))
    total = torch.cuda.get_device_properties(world.device).total_memory
    fitting, size = 0, 1
    peaks: list[int] = []
    while True:
        if world.sharded and world.any(outgrown(peaks, total)):
            break
        torch.cuda.reset_peak_memory_stats(world.device)
        failed = out_of_memory(attempt, min(size, share))
        used = torch.cuda.max_memory_reserved(world.device)
        peaks.append(torch.cuda.max_memory_allocated(world.device))
        if world.any(failed or used > HEADROOM * total):
            break
        fitting = min(size, share)
        if fitting == share:
            break
        size *= 2
    release_memory()
    if not fitting:
        raise TrainingError(
            "not even one row of full length fits on the GPU; set batch.activation_checkpointing or max_length"
        )
    return fitting


def outgrown(peaks: list[int], total: int) -> bool:
    """Whether twice the rows of the last attempt cannot fit ``total`` bytes, as the peaks of one row, two, four … tell: what
    a row takes is the same for all.

    With a sharded model that is not tried: a rank that runs out of memory a moment before the others leaves them waiting for it
    in the middle of a pass.
    """
    return len(peaks) > 1 and peaks[-1] + 2 * (peaks[-1] - peaks[-2]) > total


def out_of_memory(work: Callable[..., None], *arguments: Any) -> bool:
    """Does the work. Returns True when it ran out of CUDA memory, after releasing what it held."""
    try:
        work(*arguments)
        return False
    except torch.OutOfMemoryError:
        pass
    release_memory()  # out here the exception is gone, and with it the frames that hold the tensors
    return True


def release_memory() -> None:
    """Gives cached blocks back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def halved(size: int, step: int) -> int:
    """Half the micro-batch. Raises TrainingError at one row, which cannot be halved."""
    if size <= 1:
        raise TrainingError(
            f"out of GPU memory at step {step} with one row at a time; set batch.activation_checkpointing: true, lower "
            "max_length, or take a GPU with more memory"
        )
    return size // 2
