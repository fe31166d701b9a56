"""The learning rate as a function of the step alone, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from remote_payload.settings.training import Schedule


def warmup_steps(warmup: float, total: int) -> int:
    """Steps of warm-up: a share of ``total`` below 1, a number of steps from 1 on; never all of them."""
    steps = round(warmup * total) if warmup < 1 else round(warmup)
    return min(steps, max(total - 1, 0))


def rate(schedule: Schedule, step: int, total: int) -> float:
    """Share of the peak learning rate for optimizer step ``step`` (from 0) of ``total``.

    Warm-up is linear and starts above zero, (step + 1) / steps, so that no step has rate zero; then cosine, linear or constant down
    to ``final``, which would be reached one step after the last.
    """
    warmup = warmup_steps(schedule.warmup, total)
    if step < warmup:
        return (step + 1) / warmup
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    if schedule.name == "constant":
        return 1.0
    left = 0.5 * (1 + math.cos(math.pi * done)) if schedule.name == "cosine" else 1 - done
    return schedule.final + (1 - schedule.final) * left


def due(step: int, every_steps: int | None, every_epochs: float | None, steps_per_epoch: int) -> bool:
    """Whether something that happens every so many steps, or every share of an epoch, happens after ``step`` steps (from 1).

    Shares of an epoch fall on the nearest step: 0.2 of 7 steps is steps 1, 3, 4, 6, 7, then 8 …
    """
    if every_steps:
        return step % every_steps == 0
    if not every_epochs:
        return False
    period = max(every_epochs * steps_per_epoch, 1.0)
    return round(max(round(step / period), 1) * period) == step
