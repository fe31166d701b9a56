"""How far a forecast of memory may be from what a run takes. The tests on a GPU hold it to this, and ``gpurun submit`` allows as much."""

from __future__ import annotations

from remote_payload.forecast.shape import TrainingShape

FULL_TRAINING = 0.10  # of what the run takes, in either direction
LORA = 0.15


def stated_error(shape: TrainingShape) -> float:
    """The error that is stated for a run of this shape, as a share of what it takes."""
    return LORA if shape.lora_rank else FULL_TRAINING


def cannot_fit(needed: int, available: int, error: float) -> bool:
    """Whether a run that is forecast to need so many bytes does not fit, even where the forecast is too high by all of its error."""
    return needed > available * (1 + error)
