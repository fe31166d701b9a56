"""What a recipe hands to the training loop, and what it gets back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor, nn

from remote_payload.train.loop.signals import Requests


@dataclass
class MicroBatch:
    """What goes through the model at once: tensors (and plain numbers) by name, and how many real tokens they hold."""

    tensors: dict[str, Any]
    tokens: int

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device; pinned memory is copied while the device works."""
        moved = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in self.tensors.items()
        }
        return MicroBatch(moved, self.tokens)


class Task(Protocol):
    """What a recipe teaches. Every method is called on every rank, in the same order."""

    steps_per_epoch: int
    fixed_shapes: bool  # every micro-batch has the same shape: torch.compile pays

    def steps(self, epoch: int, start: int) -> Iterator[Any]:
        """The optimizer steps of an epoch from number ``start`` on, the same on every rank; a function of (seed, epoch)."""

    def micro_batches(self, step: Any, micro_batch_rows: int) -> list[MicroBatch]:
        """This rank's share of a step, in pieces no larger than so many rows of full length; may be empty."""

    def heaviest(self, micro_batch_rows: int) -> MicroBatch:
        """The largest micro-batch of so many rows, to see whether it fits."""

    def loss(self, model: nn.Module, batch: MicroBatch) -> tuple[Any, ...]:
        """A tuple that begins with the sum of the losses (fp32, differentiable) and what it is to be divided by: tokens,
        examples or their weights. What follows is for the evaluation.
        """

    def evaluate(self, model: nn.Module, micro_batch_rows: int) -> dict[str, float]:
        """Metrics over all ranks; the model is in eval mode and gradients are off."""


class Scored(TypedDict):
    """The metrics of one step: all that choosing the best needs."""

    step: int
    metrics: dict[str, float]


class EvaluationResult(Scored):
    """An evaluation, as checkpoints and the record keep it."""

    epoch: float
    seconds: float  # that it took


@dataclass
class Progress:
    """Where training is: all that a checkpoint holds besides tensors. The data position is (epoch, step in the epoch).

    ``best``, ``best_step`` and ``without_better`` follow from the evaluations (best.py).
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    micro: int = 0  # rows that go through a device at once
    probed: int = 0  # as many fitted when that was tried; micro is less after an OOM
    seconds: float = 0.0  # of training, in all processes that took part in it
    timed_tokens: int = 0  # tokens and seconds of the optimizer steps alone: the speed
    timed_seconds: float = 0.0
    seed: int | None = None  # what the data position means depends on these two
    steps_per_epoch: int | None = None
    best: float | None = None
    best_step: int | None = None
    without_better: int = 0
    evaluations: list[EvaluationResult] = field(default_factory=list)

    def evaluated(self) -> bool:
        """Whether there is an evaluation of this very step."""
        return any(entry["step"] == self.step for entry in self.evaluations)


FINISHED, EARLY, STOPPED = "finished", "early stopping", "stopped"  # why training ended


@dataclass
class Outcome:
    """What came of it: ``reason`` is FINISHED, EARLY or STOPPED. Seconds and speed are of the whole run, resumed or not."""

    progress: Progress
    total: int
    reason: str
    seconds: float
    peak_memory: int
    losses: list[float]  # of this process's steps, resumed ones not included
    tokens_per_second: float
    mfu: float | None
    requests: Requests  # they are listened to until the process ends
