"""The disk that the checkpoints of training runs will take, from config.json and settings, before money is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remote_payload.forecast.architecture import Architecture, count_parameters, lora_parameters
from remote_payload.forecast.shape import BYTES, TrainingShape


@dataclass(frozen=True)
class DiskForecast:
    """What stays on the disk at the end, over all runs: checkpoints and each run's finished model."""

    runs: int
    checkpoints: int
    resumable: int  # of the checkpoints: those with optimizer state
    each: int  # bytes of a checkpoint with weights alone
    total: int  # bytes


def forecast_disk(
    model: Architecture, shape: TrainingShape, kept: Sequence[int], resumable: int | None = None
) -> DiskForecast:
    """Disk for runs that keep ``kept[i]`` checkpoints, of which at most ``resumable`` a run (None: all) have optimizer state."""
    whole, bare = (checkpoint_bytes(model, shape, resumable=each) for each in (True, False))
    with_state = sum(min(count, resumable or count) for count in kept)
    total = with_state * whole + (sum(kept) - with_state) * bare + len(kept) * bare  # and the finished models
    return DiskForecast(runs=len(kept), checkpoints=sum(kept), resumable=with_state, each=bare, total=total)


def checkpoint_bytes(model: Architecture, shape: TrainingShape, resumable: bool = True) -> int:
    """Size of a checkpoint: weights (with LoRA the adapter's alone), and AdamW's two moments if it is resumable."""
    if shape.lora_rank:
        saved, width = lora_parameters(model, shape.lora_rank, shape.lora_targets), 4
    else:
        saved, width = count_parameters(model, head=shape.language_head).total, BYTES[shape.weights]
    return saved * width * (3 if resumable else 1)


def checkpoints_of_a_run(epochs: float, every_epochs: float, start: bool = True, final: bool = True) -> int:
    """How many checkpoints a run makes: every fraction of an epoch, its start and its end (1 epoch every 0.2: 7)."""
    return round(epochs / every_epochs) + start + final
