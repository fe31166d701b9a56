"""The processes of a run and what they exchange. One process per GPU, as torchrun starts them; without torchrun, a single one.

A model that fits is whole on every rank and gradients are summed (``GradientSum``). One that does not is sharded over all of them
by ``fully_shard``; there the collectives are in the forward pass too, every rank must do the same number of micro-batches, and
running out of memory ends the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 32 * 2**20  # of gradients that travel together


@dataclass
class World:
    """This process among ``size``: its rank, and the device that is its own."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    sharded: bool = False

    @classmethod
    def from_environment(cls, device: str | None = None) -> World:
        """Joins the process group that torchrun's variables describe (nccl on CUDA, gloo elsewhere); alone without them.

        ``device`` forces "cpu", "cuda" or "mps"; by itself CUDA is taken where it is, otherwise the CPU.
        """
        rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        own = torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)
        if kind == "cuda":
            torch.cuda.set_device(own)
        if "RANK" in os.environ and not dist.is_initialized():
            dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(minutes=30))
        return cls(rank, size, local_rank, own)

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes files and talks."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks, in double precision: counts stay exact."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, *values: float) -> list[float]:
        """The largest of each value over all ranks."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one rank at least; all ranks get the same answer."""
        return self.max(float(flag))[0] > 0

    def _reduce(self, values: Iterable[float], operation: Any) -> list[float]:
        if self.size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, operation)
        reduced: list[float] = tensor.tolist()
        return reduced

    def broadcast(self, value: Any) -> Any:
        """What the main rank has, on every rank (plain Python values)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device if self.device.type == "cuda" else None)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of ranks (plain Python values)."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def barrier(self) -> None:
        """Waits until every rank is here."""
        self.any(False)

    def share(self, items: list[Any]) -> list[Any]:
        """This rank's part of a list that all ranks have: every ``size``-th item, so that a sorted list is dealt out evenly."""
        return items[self.rank :: self.size]

    def replicate(self, model: nn.Module) -> None:
        """Gives every rank the main rank's parameters and buffers."""
        if self.size > 1 and not self.sharded:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.data, src=0)

    @property
    def gradient_scale(self) -> float:
        """What reduced gradients must be multiplied by to be sums: ``fully_shard`` averages over the ranks."""
        return float(self.size) if self.sharded else 1.0

    def shard(self, model: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """Shards parameters, gradients and optimizer state over all ranks with FSDP2, one group per block, in place."""
        from torch.distributed.fsdp import fully_shard

        mesh = dist.init_device_mesh(self.device.type, (self.size,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        # The root too, which FSDP2 otherwise leaves unsharded after a forward pass: saving after an evaluation then crashes (torch 2.13).
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        self.sharded = True


def unwrapped(tensor: Tensor) -> Tensor:
    """A whole, ordinary tensor: a DTensor is gathered from all ranks (so all must call this), any other is returned as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class GradientSum:
    """The sum over all ranks of the gradients of ``parameters``, while the last micro-batch is still in its backward pass.

    Alone, or with a sharded model, it does nothing. Otherwise buckets of gradients are reduced in one fixed order, each as
    soon as it and all before it are complete, so that the network works while the device does. DistributedDataParallel does
    the same with one difference that matters here: a rank that runs out of memory half-way still sends what is missing
    (``finish``), so that no rank waits for it for ever, and then all discard the step together and redo it with smaller
    micro-batches.
    """

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
        """Before the backward pass of this rank's last micro-batch: buckets that it completes may be sent."""
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
        """Sends the remaining buckets (zeros where this rank has no gradient), waits, and stores the sums. Every rank must call it."""
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
