"""One optimizer step, and what it takes: micro-batches, and a task that knows their loss.

Every micro-batch goes forward and backward; the gradients are summed over micro-batches and ranks, divided by what the loss
counts, clipped, and applied. Neither the size of a micro-batch nor the number of GPUs changes what is learnt.

The host waits for the device once a step, when it reads what the step was like (``Stepper.read``), so that the device always has
work queued.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from remote_payload.train.distributed import GradientSum, copied, unwrapped
from remote_payload.train.errors import TrainingError
from remote_payload.train.loop.micro_batch import release_memory
from remote_payload.train.run import Run
from remote_payload.train.signals import Requests
from remote_payload.train.state.optimizer import build_optimizer


@dataclass
class MicroBatch:
    """What goes through the model at once: tensors (and plain numbers) by name, and how many real tokens they hold."""

    tensors: dict[str, Any]
    tokens: int

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device, copied while the device works."""
        moved = {n: copied(value, device) if isinstance(value, Tensor) else value for n, value in self.tensors.items()}
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


@runtime_checkable
class EvenTask(Protocol):
    """A task that knows how far apart its ranks are. A sharded model needs as many micro-batches on every rank."""

    def most_micro_batches(self, step: Any, micro_batch_rows: int) -> int:
        """How many micro-batches the rank with the most of them has in a step."""


@runtime_checkable
class ScoredTask(Protocol):
    """A task that measures more of its training passes than their loss, without a further pass: hits, for one."""

    scores_width: int

    def scores(self, batch: MicroBatch, loss: Any) -> Tensor:
        """``[scores_width]`` in fp64, of a micro-batch and what ``loss`` gave for it; added up over micro-batches, ranks and steps."""

    def figures(self, scores: list[float]) -> dict[str, float]:
        """Metrics by name from scores that were added up."""


@dataclass(frozen=True)
class StepFacts:
    """A step over all ranks: mean loss and what it was divided by, gradient norm before clipping, real tokens, what was asked for
    meanwhile, and the scores of a ``ScoredTask``.
    """

    loss: float
    count: float
    grad_norm: float
    tokens: int
    stop_asked: bool
    save_asked: bool
    scores: list[float]

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Stepper:
    """A model, the task it learns, and its optimizer."""

    def __init__(self, run: Run, model: nn.Module, task: Task) -> None:
        self.world, self.settings, self.model, self.task = run.world, run.settings, model, task
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.scored = task if isinstance(task, ScoredTask) else None
        self.gradients = GradientSum(run.world, self.parameters)
        self.optimizer = build_optimizer(model, run.settings.optimizer, run.world.device, run.settings.seed)

    def step(self, work: Any, micro_batch_rows: int, lr: float, requests: Requests) -> StepFacts | None:
        """Takes one step at learning rate ``lr``; None when a rank ran out of memory.

        The weights change unless that is so, or the loss or the gradient is not finite. Every rank must call it.

        Raises TrainingError when memory runs out with a sharded model. Its passes gather weights from all ranks, layer by layer:
        a rank that fails has left that sequence, and others may wait in the middle of it for ever. They cannot be told, since
        the message would be a collective too; the end of this process ends them.
        """
        tokens, failed = 0, False
        width = 2 + (self.scored.scores_width if self.scored else 0)
        sums = torch.zeros(width, dtype=torch.float64, device=self.world.device)  # loss, count, scores
        self.gradients.begin()
        try:
            tokens = self.accumulate(work, micro_batch_rows, sums)
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
        any_failed, stop, save, all_tokens, loss, count, *scores, norm = self.read(
            (failed, requests.stop, requests.save, tokens), sums
        )
        if any_failed:
            return None
        scale = self.world.gradient_scale / max(count, 1e-12)
        mean = loss / max(count, 1e-12)
        facts = StepFacts(mean, count, norm * scale, int(all_tokens), stop > 0, save > 0, scores)
        if facts.finite:
            multiply_gradients(self.parameters, scale * clipping(facts.grad_norm, self.settings.optimizer.clip))
            self.update(lr)
        return facts

    def read(self, numbers: Sequence[float], sums: Tensor) -> list[float]:
        """``numbers`` and ``sums`` over all ranks, then the norm of the gradients: the one time in a step that the host waits."""
        total = self.world.sum_on_device(numbers, sums)
        found: list[float] = torch.cat([total, gradient_norm(self.parameters, total)]).tolist()
        return found

    def accumulate(self, work: Any, micro_batch_rows: int, sums: Tensor) -> int:
        """Adds the gradient of the summed losses of this rank's micro-batches, and to ``sums`` loss, count and scores. Returns the real
        tokens.
        """
        self.model.train()
        batches = self.task.micro_batches(work, micro_batch_rows)
        real = len(batches)
        if self.world.sharded and real < (most := self.most_micro_batches(work, micro_batch_rows, real)):
            # A sharded model needs all ranks in every pass: those with fewer micro-batches add one of weight zero.
            batches += [batches[-1] if batches else self.task.heaviest(1)] * (most - real)
        for index, batch in enumerate(each.to(self.world.device) for each in batches):
            loss, count, *_ = found = self.task.loss(self.model, batch)
            if index == len(batches) - 1:
                self.gradients.arm()
            (loss if index < real else loss * 0.0).backward()
            if index < real:
                sums[:2] += torch.stack([loss.detach().double(), as_scalar(count, loss.device)])
                if self.scored:
                    sums[2:] += self.scored.scores(batch, found)
        return sum(batch.tokens for batch in batches[:real])

    def most_micro_batches(self, work: Any, micro_batch_rows: int, own: int) -> int:
        """How many micro-batches the rank with the most of them has; a task that does not know it costs one more wait."""
        if isinstance(self.task, EvenTask):
            return self.task.most_micro_batches(work, micro_batch_rows)
        return int(self.world.max(own)[0])

    def update(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def as_scalar(value: Any, device: torch.device) -> Tensor:
    """A tensor of one value, or a number, as a scalar in fp64 on ``device``."""
    if isinstance(value, Tensor):
        return copied(value.detach(), device).double()
    return torch.full((), value, dtype=torch.float64, device=device)  # filled on the device: nothing is copied


@torch.no_grad()
def gradient_norm(parameters: list[nn.Parameter], like: Tensor) -> Tensor:
    """``[1]``: the norm of all gradients as one vector, 0 where there are none; dtype and device of ``like``."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return like.new_zeros(1)
    return unwrapped(torch.nn.utils.get_total_norm(gradients)).to(like.dtype).reshape(1)


def clipping(norm: float, limit: float) -> float:
    """What gradients of this norm must be multiplied by to have one of at most ``limit`` (0: no limit)."""
    return min(1.0, limit / (norm + 1e-6)) if limit else 1.0


@torch.no_grad()
def multiply_gradients(parameters: list[nn.Parameter], factor: float) -> None:
    """In place. One factor divides them by what the loss counts, and clips them."""
    if gradients := [parameter.grad for parameter in parameters if parameter.grad is not None]:
        torch._foreach_mul_(gradients, factor)
