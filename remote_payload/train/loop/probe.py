"""Whether a micro-batch fits: a later step's peak of memory, tried on the heaviest data before training begins."""

from __future__ import annotations

from types import TracebackType

import torch

from remote_payload.train.loop.step import Stepper
from remote_payload.train.state import rng


class Probe:
    """Tries micro-batches with all that is alive in a later step: ``with Probe(stepper, share) as probe: probe.attempt(rows)``.

    From the second step on the optimizer's state is alive during forward and backward, and from the second micro-batch of a step
    on so are the gradients (in their buckets, where ranks sum them). So the state is made first, once for all attempts, and an
    attempt is two micro-batches and an update; one micro-batch where it holds this rank's whole ``share`` of a batch, in rows.

    An evaluation is not tried: with as many rows it keeps neither activations nor gradients. Nothing is sent between replicated
    ranks, so one that runs out of memory leaves none waiting; a sharded model communicates in its passes (see ``outgrown``).

    It is for the time before the first step and before a checkpoint is loaded, when the optimizer has no state. Afterwards
    weights, optimizer and generators are as they were, bit for bit.
    """

    def __init__(self, stepper: Stepper, share: int) -> None:
        self.stepper, self.share, self.broken_off = stepper, share, False

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stepper.optimizer.state.clear()
        if self.broken_off and error is None:  # not where it failed: there the tensors that did not fit are still held
            self.stepper.world.give_up_pass(self.stepper.model)

    def attempt(self, micro_batch_rows: int) -> None:
        """A step on the heaviest micro-batches of so many rows. Raises OutOfMemoryError when it does not fit."""
        stepper = self.stepper
        with rng.preserved():
            try:
                if not stepper.optimizer.state:
                    self.make_state()
                stepper.model.train()
                stepper.gradients.begin()
                for _ in range(1 if micro_batch_rows >= self.share else 2):
                    loss, *_ = stepper.task.loss(
                        stepper.model, stepper.task.heaviest(micro_batch_rows).to(stepper.world.device)
                    )
                    loss.backward()
                self.update_with_zeros()
            except torch.OutOfMemoryError:
                self.broken_off = True
                raise
            finally:
                stepper.optimizer.zero_grad(set_to_none=True)
                stepper.gradients.begin()

    def make_state(self) -> None:
        """The optimizer's state, all zeros, by an update with gradients of zero."""
        for parameter in self.stepper.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.update_with_zeros()

    def update_with_zeros(self) -> None:
        """An update that changes neither weights nor moments: not even a NaN in a gradient reaches them."""
        for parameter in self.stepper.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()
        self.stepper.update(lr=0.0)
