"""The processes of a run and what they exchange. One process per GPU, as torchrun starts them; without torchrun, a single one.

A model that fits is whole on every rank and gradients are summed (``GradientSum``). One that does not is sharded over all of them
by ``fully_shard``; there the collectives are in the forward pass too, every rank must do the same number of micro-batches, and
running out of memory ends the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from remote_payload.train.errors import TrainingError

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

    @property
    def hardware(self) -> str:
        """The main rank's device, with its memory: two of the same name and size hold the same micro-batch."""
        own = self.device.type
        if own == "cuda":
            about = torch.cuda.get_device_properties(self.device)
            own = f"{about.name}, {about.total_memory >> 20} MiB"
        return str(self.broadcast(own))

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks, in double precision: counts stay exact."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def sum_on_device(self, numbers: Sequence[float], sums: Tensor) -> Tensor:
        """Each of the host's ``numbers``, then each of ``sums`` (``[n]``, fp64), summed over all ranks; ``[numbers + n]``.

        The result stays on the device, and nothing waits for it.
        """
        own = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
        total = torch.cat([copied(own, self.device), sums])
        if self.size > 1:
            dist.all_reduce(total)
        return total

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

    def give_up_pass(self, model: nn.Module) -> None:
        """After memory ran out in a pass of a sharded model, on all ranks at the same place: makes FSDP2 ready for the next pass.

        Every rank must call it. Otherwise FSDP2 waits for the end of the pass that was broken off: later ones give no gradients.
        ``reset_iter_state`` (torch 2.13) ends it, but leaves the gradients of whole layers, which the next pass would add to.
        Raises TrainingError where torch is older.
        """
        if not self.sharded:
            return
        if not hasattr(model, "reset_iter_state"):
            raise TrainingError(
                f"out of GPU memory while a micro-batch was sought for a sharded model, and torch {torch.__version__} cannot go on "
                "after that (2.13 can); set batch.micro to a number and submit again"
            )
        from torch.distributed.fsdp import FSDPModule

        model.reset_iter_state()
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.unshard()
                for parameter in module.parameters():
                    parameter.grad = None
                module.reshard()


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """The same values on ``device``. The host does not wait for a copy to a GPU, which takes pinned memory."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def unwrapped(tensor: Tensor) -> Tensor:
    """A whole, ordinary tensor: a DTensor is gathered from all ranks (so all must call this), any other is returned as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class GradientSum:
    """The sum over all ranks of the gradients of ``parameters``, while the last micro-batch is still in its backward pass.

    Alone, or with a sharded model, it does nothing. Otherwise gradients lie in buckets: ``parameter.grad`` is a view of its
    bucket from the moment autograd has made it, later micro-batches add to it there, and the bucket is reduced in place. So
    there is no second copy of all gradients. Buckets are reduced in one fixed order, each as soon as it and all before it are
    complete, so that the network works while the device does. DistributedDataParallel does the same (its
    ``gradient_as_bucket_view``) with two differences that matter here: a rank that runs out of memory half-way still sends
    what is missing (``finish``), so that no rank waits for it for ever, and then all discard the step together and redo it
    with smaller micro-batches; and buckets are made in the backward pass and freed with the gradients.
    """

    def __init__(self, world: World, parameters: list[nn.Parameter]) -> None:
        self.needed = world.size > 1 and not world.sharded  # fully_shard reduces in the backward pass itself
        # The last layers' gradients are complete first.
        self.buckets = list(buckets(parameters[::-1])) if self.needed else []
        self.home: dict[nn.Parameter, tuple[int, int]] = {}  # number of its bucket, first element there
        for index, bucket in enumerate(self.buckets):
            starts = accumulate((parameter.numel() for parameter in bucket), initial=0)
            self.home.update((parameter, (index, start)) for parameter, start in zip(bucket, starts, strict=False))
        self.begin()
        for parameter in self.home:
            parameter.register_post_accumulate_grad_hook(self._accumulated)

    def begin(self) -> None:
        """Before a step, while no parameter has a gradient: there are no buckets yet, and nothing is sent."""
        self.flats: list[Tensor | None] = [None] * len(self.buckets)
        self.placed: set[nn.Parameter] = set()  # their gradients lie in their buckets
        self.missing = [len(bucket) for bucket in self.buckets]
        self.sent: list[Any] = []
        self.armed = False

    def arm(self) -> None:
        """Before the backward pass of this rank's last micro-batch: buckets that it completes may be sent."""
        self.armed = True

    def _accumulated(self, parameter: nn.Parameter) -> None:
        self._place(parameter)
        if not self.armed:
            return
        self.missing[self.home[parameter][0]] -= 1
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self._send()

    @torch.no_grad()
    def _place(self, parameter: nn.Parameter) -> None:
        """Makes the gradient a view of its bucket, unless it is one; zeros where there is none."""
        if parameter in self.placed:
            return
        (index, start), gradient = self.home[parameter], parameter.grad
        bucket = self.buckets[index]
        if gradient is not None and len(bucket) == 1 and gradient.is_contiguous():
            self.flats[index] = gradient.view(-1)  # it is the bucket: nothing to copy
        else:
            flat = self.flats[index]
            if flat is None:
                flat = self.flats[index] = parameter.new_empty(sum(each.numel() for each in bucket))
            piece = flat[start : start + parameter.numel()].view_as(parameter)
            if gradient is None:
                piece.zero_()
            else:
                piece.copy_(gradient)
            parameter.grad = piece
        self.placed.add(parameter)

    @torch.no_grad()
    def _send(self) -> None:
        index = len(self.sent)
        for parameter in self.buckets[index]:
            self._place(parameter)
        self.sent.append(dist.all_reduce(self.flats[index], async_op=True))

    def finish(self) -> None:
        """Sends the remaining buckets (zeros where this rank has no gradient) and waits: gradients are sums. Every rank calls it."""
        while len(self.sent) < len(self.buckets):
            self._send()
        for work in self.sent:
            work.wait()
        self.begin()  # the gradients alone keep their buckets


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
