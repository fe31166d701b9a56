"""One optimizer step: micro-batches forward and backward, gradients summed over the ranks, clipped, applied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from remote_payload.train.errors import TrainingError
from remote_payload.train.loop import rng
from remote_payload.train.loop.gradients import GradientSum
from remote_payload.train.loop.micro_batch import derive, out_of_memory, release_memory, smaller
from remote_payload.train.loop.optimizer import build_optimizer, normalise_and_clip
from remote_payload.train.loop.signals import Requests
from remote_payload.train.loop.task import Progress, Task
from remote_payload.train.run import Run


@dataclass(frozen=True)
class StepFacts:
    """What a step was like, over all ranks: mean loss, gradient norm before clipping, real tokens, and what was asked for."""

    loss: float
    grad_norm: float
    tokens: int
    stop_asked: bool
    save_asked: bool

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Stepper:
    """A model, its optimizer, and the micro-batch that fits."""

    def __init__(self, run: Run, model: nn.Module, task: Task, progress: Progress | None = None) -> None:
        self.run, self.world, self.settings, self.model, self.task = run, run.world, run.settings, model, task
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.gradients = GradientSum(run.world, self.parameters)
        self.optimizer = build_optimizer(model, run.settings.optimizer, run.world.device)
        self.progress = progress or Progress()

    def step(self, number: int, work: Any, lr: float, requests: Requests) -> StepFacts:
        """Takes step ``number`` at learning rate ``lr``; redone with half the micro-batch while any rank runs out of memory.

        A step whose loss or gradient is not finite changes nothing. Raises TrainingError when one row alone does not fit.
        """
        generators = rng.capture()
        while True:
            sums = [0.0, 0.0, 0.0]  # loss, count, real tokens
            self.gradients.begin()
            failed = out_of_memory(self.accumulate, work, sums)
            self.gradients.finish()
            any_failed, stop, save, loss, count, tokens = self.world.sum(failed, requests.stop, requests.save, *sums)
            if not any_failed:
                break
            self.shrink(number, generators)
        count = max(count, 1e-12)
        norm = normalise_and_clip(self.parameters, self.world.gradient_scale / count, self.settings.optimizer.clip)
        facts = StepFacts(loss / count, norm, int(tokens), stop > 0, save > 0)
        if facts.finite:
            self.update(lr)
        return facts

    def update(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def accumulate(self, work: Any, sums: list[float]) -> None:
        """Adds the gradient of the summed losses of this rank's micro-batches, and the sums themselves."""
        self.model.train()
        micros = self.task.micro_batches(work, self.progress.micro)
        totals = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        real = len(micros)
        if self.world.sharded and real < (most := int(self.world.max(real)[0])):
            micros += [micros[-1] if micros else self.task.heaviest(1)] * (most - real)  # weightless: see below
        for index, micro in enumerate(micros):
            loss, count, *_ = self.task.loss(self.model, micro.to(self.world.device))
            if index == len(micros) - 1:
                self.gradients.arm()
            (loss if index < real else loss * 0.0).backward()
            if index < real:
                count = torch.as_tensor(count, device=loss.device)
                totals += torch.stack([loss.detach().double(), count.detach().double()])
                sums[2] += micro.tokens
        sums[0], sums[1] = totals.tolist()  # the one wait for the device

    def shrink(self, step: int, generators: dict[str, Tensor]) -> None:
        """After an OOM on any rank: drop the gradients, halve the micro-batch, draw the same random numbers again."""
        if self.world.sharded:
            raise TrainingError("out of GPU memory with a sharded model; set a smaller batch.micro and resume")
        self.optimizer.zero_grad(set_to_none=True)
        release_memory()
        rng.restore(generators)
        before = self.progress.micro
        self.progress.micro = after = smaller(before, step)
        self.run.telemetry.event("oom", step=step, micro_batch_before=before, micro_batch_after=after)
        self.run.log(
            f"out of GPU memory at step {step}: the step is redone with micro-batch {after} instead of {before}; "
            f"the effective batch stays {self.settings.batch.size}"
        )

    def find_micro_batch(self) -> int:
        """The setting where it is a number, else the largest that fits; never more than this rank's part of the batch."""
        share = math.ceil(self.settings.batch.size / self.world.size)
        wanted = self.settings.batch.micro
        if wanted == "auto":
            return derive(self.world, share, self.task.heaviest(1).tokens, self.attempt)
        return min(wanted, share)

    def attempt(self, size: int) -> None:
        """One whole step on the heaviest micro-batch, leaving weights, optimizer and generators as they were."""
        with rng.preserved():
            self.model.train()
            try:
                loss, *_ = self.task.loss(self.model, self.task.heaviest(size).to(self.world.device))
                loss.backward()
                for parameter in self.parameters:
                    if parameter.grad is not None:
                        parameter.grad.zero_()  # so that not even a NaN reaches the weights
                self.update(lr=0.0)
            finally:
                self.optimizer.zero_grad(set_to_none=True)
                self.optimizer.state.clear()
