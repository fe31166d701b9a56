"""Optimizer steps with the micro-batch that fits the device: found by trying, halved when memory runs out after all."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from remote_payload.train.loop.micro_batch import halved, largest_that_fits, release_memory
from remote_payload.train.loop.probe import Probe
from remote_payload.train.loop.step import StepFacts, Stepper
from remote_payload.train.run import Run
from remote_payload.train.signals import Requests
from remote_payload.train.state import rng
from remote_payload.train.state.progress import Progress


class FittingSteps:
    """Keeps ``progress.micro_batch_rows`` at what fits, and takes the steps of ``stepper`` with it."""

    def __init__(self, run: Run, stepper: Stepper, progress: Progress) -> None:
        self.run, self.world, self.stepper, self.progress = run, run.world, stepper, progress

    def find(self) -> int:
        """The setting where it is a number, else the largest that fits; never more than this rank's part of the batch."""
        batch = self.run.settings.batch
        share = math.ceil(batch.size / self.world.size)
        if batch.micro == "auto":
            with Probe(self.stepper, share) as probe:
                return largest_that_fits(self.world, share, self.stepper.task.heaviest(1).tokens, probe.attempt)
        return min(int(batch.micro), share)

    def step(self, work: Any, lr: float, requests: Requests) -> StepFacts:
        """Takes a step; redone with half the micro-batch while any rank runs out of memory.

        Raises TrainingError when one row alone does not fit.
        """
        generators = rng.capture()
        while (facts := self.stepper.step(work, self.progress.micro_batch_rows, lr, requests)) is None:
            self.shrink(generators)
        return facts

    def shrink(self, generators: dict[str, Tensor]) -> None:
        """After an OOM on any rank: drop the gradients, halve the micro-batch, go back to the same random numbers."""
        self.stepper.optimizer.zero_grad(set_to_none=True)
        release_memory()
        rng.restore(generators)
        step, before = self.progress.step, self.progress.micro_batch_rows
        self.progress.micro_batch_rows = after = halved(before, step)
        self.run.telemetry.event("oom", step=step, micro_batch_before=before, micro_batch_after=after)
        self.run.log(
            f"out of GPU memory at step {step}: the step is redone with micro-batch {after} instead of {before}; "
            f"the effective batch stays {self.run.settings.batch.size}"
        )
