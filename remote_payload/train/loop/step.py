"""One optimizer step, and what it takes: micro-batches, and a task that knows their loss.

Every micro-batch goes forward and backward; the gradients are summed over micro-batches and ranks, divided by what the loss
counts, clipped, and applied. Neither the size of a micro-batch nor the number of GPUs changes what is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from remote_payload.train.distributed import GradientSum, unwrapped
from remote_payload.train.errors import TrainingError
from remote_payload.train.loop.micro_batch import release_memory
from remote_payload.train.loop.optimizer import build_optimizer
from remote_payload.train.loop.signals import Requests
from remote_payload.train.run import Run


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


@dataclass(frozen=True)
class StepFacts:
    """A step over all ranks: mean loss, gradient norm before clipping, real tokens, and what was asked for meanwhile."""

    loss: float
    grad_norm: float
    tokens: int
    stop_asked: bool
    save_asked: bool

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Stepper:
    """A model, the task it learns, and its optimizer."""

    def __init__(self, run: Run, model: nn.Module, task: Task) -> None:
        self.world, self.settings, self.model, self.task = run.world, run.settings, model, task
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.gradients = GradientSum(run.world, self.parameters)
        self.optimizer = build_optimizer(model, run.settings.optimizer, run.world.device)

    def step(self, work: Any, micro_batch_rows: int, lr: float, requests: Requests) -> StepFacts | None:
        """Takes one step at learning rate ``lr``; None when a rank ran out of memory.

        The weights change unless that is so, or the loss or the gradient is not finite. Every rank must call it.

        Raises TrainingError when memory runs out with a sharded model. Its passes gather weights from all ranks, layer by layer:
        a rank that fails has left that sequence, and others may wait in the middle of it for ever. They cannot be told, since
        the message would be a collective too; the end of this process ends them.
        """
        sums, failed = [0.0, 0.0, 0.0], False  # loss, count, real tokens
        self.gradients.begin()
        try:
            self.accumulate(work, micro_batch_rows, sums)
        except torch.OutOfMemoryError as error:
            if self.world.sharded:
                raise TrainingError(
                    "out of GPU memory with a sharded model, which cannot redo a step; set a smaller batch.micro (a number) and "
                    "resume from the last checkpoint"
                ) from error
            failed = True
        if failed:
            release_memory()  # here the exception is gone, and with it the frames that hold the tensors
        self.gradients.finish()
        any_failed, stop, save, loss, count, tokens = self.world.sum(failed, requests.stop, requests.save, *sums)
        if any_failed:
            return None
        count = max(count, 1e-12)
        norm = normalise_and_clip(self.parameters, self.world.gradient_scale / count, self.settings.optimizer.clip)
        facts = StepFacts(loss / count, norm, int(tokens), stop > 0, save > 0)
        if facts.finite:
            self.update(lr)
        return facts

    def accumulate(self, work: Any, micro_batch_rows: int, sums: list[float]) -> None:
        """Adds the gradient of the summed losses of this rank's micro-batches, and the sums themselves."""
        self.model.train()
        batches = self.task.micro_batches(work, micro_batch_rows)
        totals = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        real = len(batches)
        if self.world.sharded and real < (most := int(self.world.max(real)[0])):
            # A sharded model needs all ranks in every pass: those with fewer micro-batches add one of weight zero.
            batches += [batches[-1] if batches else self.task.heaviest(1)] * (most - real)
        for index, batch in enumerate(batches):
            loss, count, *_ = self.task.loss(self.model, batch.to(self.world.device))
            if index == len(batches) - 1:
                self.gradients.arm()
            (loss if index < real else loss * 0.0).backward()
            if index < real:
                count = torch.as_tensor(count, device=loss.device)
                totals += torch.stack([loss.detach().double(), count.detach().double()])
                sums[2] += batch.tokens
        sums[0], sums[1] = totals.tolist()  # the one wait for the device

    def update(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def normalise_and_clip(parameters: list[nn.Parameter], scale: float, limit: float) -> float:
    """Multiplies the gradients by ``scale``, and further down to a norm of ``limit`` (0: no limit). Returns the norm before.

    One multiplication does both: a gradient of summed losses has to be divided by their count anyway.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return 0.0
    norm = float(unwrapped(torch.nn.utils.get_total_norm(gradients))) * scale
    factor = scale * min(1.0, limit / (norm + 1e-6)) if limit else scale
    torch._foreach_mul_(gradients, factor)
    return norm
