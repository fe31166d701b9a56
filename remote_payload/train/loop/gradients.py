"""Gradients summed over the ranks while the last micro-batch is still in its backward pass.

Buckets of gradients are reduced in one fixed order, each as soon as it and all before it are complete, so that the network
works while the device does. DistributedDataParallel does the same with one difference that matters here: a rank that runs out
of memory half-way sends what is missing all the same (``finish``), so that nobody waits for it for ever, and then all throw
the step away together and redo it with smaller micro-batches.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from remote_payload.train.distributed import World

BUCKET_BYTES = 32 * 2**20


class GradientSum:
    """The sum over all ranks of the gradients of ``parameters``. Alone, or with a sharded model, it does nothing."""

    def __init__(self, world: World, parameters: list[nn.Parameter]) -> None:
        self.needed = world.size > 1 and not world.sharded  # fully_shard reduces in the backward pass itself
        # The last layers' gradients are complete first.
        self.buckets = list(buckets(parameters[::-1])) if self.needed else []
        self.home = {parameter: index for index, bucket in enumerate(self.buckets) for parameter in bucket}
        self.missing: list[int] = []
        self.sent: list[tuple[Any, Tensor, list[nn.Parameter]]] = []
        self.armed = False
        for parameter in self.home:
            parameter.register_post_accumulate_grad_hook(self._complete)

    def begin(self) -> None:
        """Before a step: nothing is sent yet."""
        self.missing, self.sent, self.armed = [len(bucket) for bucket in self.buckets], [], False

    def arm(self) -> None:
        """Before the backward pass of this rank's last micro-batch: what it completes may be sent."""
        self.armed = True

    def _complete(self, parameter: nn.Parameter) -> None:
        if not self.armed:
            return
        self.missing[self.home[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        bucket = self.buckets[len(self.sent)]
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in bucket])
        self.sent.append((dist.all_reduce(flat, async_op=True), flat, bucket))

    @torch.no_grad()
    def finish(self) -> None:
        """Sends what is left (zeros where this rank has no gradient), waits, and puts the sums in place. Every rank must call it."""
        while len(self.sent) < len(self.buckets):
            self._send()
        for work, flat, bucket in self.sent:
            work.wait()
            for parameter, piece in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(piece.view_as(parameter))
        self.sent, self.armed = [], False


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in groups of one dtype and about BUCKET_BYTES, the same on every rank."""
    made: list[list[nn.Parameter]] = []
    held = 0
    for parameter in parameters:
        size = parameter.numel() * parameter.element_size()
        if not made or held + size > BUCKET_BYTES or parameter.dtype != made[-1][0].dtype:
            made.append([])
            held = 0
        made[-1].append(parameter)
        held += size
    return made
