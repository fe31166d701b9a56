"""What would make a run fit a GPU, by the same forecast that says that it does not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.memory import GIB, forecast_memory
from remote_payload.forecast.shape import TrainingShape
from runner.domain.job import Settings

SHORTEST = 128  # tokens: shorter texts are no longer the same task
RANK = 16  # the recipes' default


@dataclass(frozen=True)
class Remedy:
    """Settings to change, as they are typed, and the shape of the run that they make."""

    text: str
    shape: TrainingShape


def ways_to_fit(
    model: Architecture, shape: TrainingShape, settings: Settings, capacity: int, gpus: int, targets: tuple[str, ...]
) -> list[str]:
    """Changes after which the forecast fits ``capacity`` bytes, with their new forecasts: single ones, else pairs, else three at once.

    ``gpus``: how many the box has. ``targets``: the layers that ``lora.targets: auto`` stands for. Empty where nothing helps.
    """
    alone = [*_micro_batch(shape, settings), *_lengths(model, shape, settings, capacity)]
    switches = list(_switches(shape, settings, gpus, targets))
    for count in (1, 2, 3):
        together = [_together(shape, some) for some in itertools.combinations(switches, count)]
        tried = [*together, *alone] if count == 1 else together
        totals = [(each.text, forecast_memory(model, each.shape).total) for each in tried]
        fitting = [f"{text} ({total / GIB:.1f} GiB)" for text, total in totals if total <= capacity]
        if fitting:
            return fitting
    return []


def _switches(shape: TrainingShape, settings: Settings, gpus: int, targets: tuple[str, ...]) -> Iterator[Remedy]:
    """Settings that a recipe has and this job has not turned on."""
    if not shape.checkpoint_activations:
        yield Remedy("settings.batch.activation_checkpointing: true", replace(shape, checkpoint_activations=True))
    if settings.get("weights") == "fp32":
        yield Remedy("settings.weights: bf16", replace(shape, weights="bfloat16"))
    if "lora" in settings and not shape.lora_rank:
        frozen = "bfloat16" if shape.autocast else shape.weights
        adapted = replace(shape, lora_rank=RANK, lora_targets=targets, weights=frozen)
        yield Remedy(f"settings.lora.rank: {RANK}", adapted)
    if settings.get("shard") is False and gpus > 1:
        yield Remedy(f"settings.shard: true with resources.gpus: {gpus}", replace(shape, shards=gpus))


def _together(shape: TrainingShape, some: tuple[Remedy, ...]) -> Remedy:
    changed = shape
    for remedy in some:
        differing = {
            name: value for name, value in vars(remedy.shape).items() if value != getattr(shape, name)
        }  # of each the fields that it changes
        changed = replace(changed, **differing)
    return Remedy(" and ".join(remedy.text for remedy in some), changed)


def _micro_batch(shape: TrainingShape, settings: Settings) -> Iterator[Remedy]:
    """One row at a time, where the job file names more; the effective batch stays the same."""
    if settings.get("batch", {}).get("micro", "auto") != "auto" and shape.micro_batch > 1:
        yield Remedy("settings.batch.micro: auto", replace(shape, micro_batch=1))


def _lengths(model: Architecture, shape: TrainingShape, settings: Settings, capacity: int) -> Iterator[Remedy]:
    """The longest of a half, a quarter and so on of the maximum length that fits."""
    length = int(settings.get("max_length") or 0)
    divisor = 2
    while length // divisor >= SHORTEST:
        shorter = replace(shape, length=max(shape.length // divisor, 1))
        if forecast_memory(model, shorter).total <= capacity:
            yield Remedy(f"settings.max_length: {length // divisor}", shorter)
            return
        divisor *= 2
