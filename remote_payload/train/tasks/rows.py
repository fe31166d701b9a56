"""Training a language model on rows: pre-tokenised ones of one length, or documents packed so that none sees another.

A row is one example: ``batch.size`` counts rows, the micro-batch counts rows, an epoch passes each once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from remote_payload.train.data.packing import IGNORED, Document, first_fit_decreasing
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.loop.task import MicroBatch
from remote_payload.train.model.precision import autocast
from remote_payload.train.tasks.packed_task import micro


class Rows(Protocol):
    """Rows by number. ``fixed_shapes``: as many rows always make a micro-batch of the same shape."""

    fixed_shapes: bool

    def __len__(self) -> int: ...

    def micro(self, indices: Sequence[int]) -> MicroBatch:
        """These rows as one micro-batch: what ``CausalLoss`` takes."""

    @property
    def longest(self) -> int:
        """The number of a row that takes the most memory."""


class TokenRows:
    """Rows of one length, ``[rows, length]`` ids, in memory or mapped into it. A row's tokens all see those before them."""

    fixed_shapes = True
    longest = 0

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def micro(self, indices: Sequence[int]) -> MicroBatch:
        ids = torch.from_numpy(self.ids[list(indices)].astype(np.int64))
        targets = torch.full_like(ids, IGNORED)
        targets[:, :-1] = ids[:, 1:]
        return MicroBatch({"input_ids": ids, "targets": targets}, ids.numel())


class PackedRows:
    """Documents of at most ``capacity`` tokens in as few rows as first-fit decreasing finds."""

    fixed_shapes = False

    def __init__(self, documents: Sequence[Document], capacity: int) -> None:
        self.documents = documents
        self.rows = first_fit_decreasing([len(document) for document in documents], capacity)
        self.longest = max(range(len(self.rows)), key=self.tokens, default=0)

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, row: int) -> int:
        return sum(len(self.documents[index]) for index in self.rows[row])

    def documents_of(self, indices: Sequence[int]) -> list[int]:
        """The documents of some rows, in the order in which they lie in the micro-batch."""
        return [document for index in indices for document in self.rows[index]]

    def micro(self, indices: Sequence[int]) -> MicroBatch:
        return micro([self.documents[document] for document in self.documents_of(indices)])


class RowTask:
    """Next-token prediction on rows; ``measure(model, micro_batch)`` is what an evaluation reports.

    With fixed shapes the last step of an epoch is left out when it would be smaller than the others (other rows each epoch).
    """

    def __init__(
        self, settings: Any, world: World, rows: Rows, compute: torch.dtype, measure: Callable[[nn.Module, int], dict[str, float]]
    ) -> None:  # fmt: skip
        self.rows, self.world, self.compute, self.measure = rows, world, compute, measure
        self.seed, self.batch, self.fixed_shapes = settings.seed, settings.batch.size, rows.fixed_shapes
        steps = len(rows) / self.batch
        self.steps_per_epoch = math.floor(steps) if rows.fixed_shapes else math.ceil(steps)
        if not self.steps_per_epoch:
            raise InputError(f"settings.batch.size: {self.batch} rows, but the data is {len(rows)}")

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        for step in range(start, self.steps_per_epoch):
            yield order[step * self.batch : (step + 1) * self.batch].tolist()

    def micro_batches(self, step: list[int], size: int) -> list[MicroBatch]:
        mine = self.world.share(step)
        return [self.rows.micro(mine[at : at + size]) for at in range(0, len(mine), size)]

    def heaviest(self, size: int) -> MicroBatch:
        return self.rows.micro([self.rows.longest] * size)

    def loss(self, model: nn.Module, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        with autocast(self.world.device, self.compute):
            loss = model(**micro.tensors)
        return loss.sum, loss.count

    def evaluate(self, model: nn.Module, size: int) -> dict[str, float]:
        return self.measure(model, size)


def validation_metrics(
    model: nn.Module, rows: Rows, count: int, world: World, compute: torch.dtype, size: int
) -> dict[str, float]:
    """``loss`` (nats a token), ``perplexity`` and ``token_accuracy`` over the first ``count`` rows; only sums are kept."""
    sums = torch.zeros(3, dtype=torch.float64, device=world.device)
    for indices in dealt_out(world, range(count), size):
        with autocast(world.device, compute):
            found = model(**rows.micro(indices or [0]).to(world.device).tensors)
        if indices:
            sums += torch.stack([part.double() for part in (found.sum, found.count, found.correct)])
    loss, tokens, correct = world.sum(*sums.tolist())
    mean = loss / max(tokens, 1)
    return {"loss": mean, "perplexity": math.exp(min(mean, 700.0)), "token_accuracy": correct / max(tokens, 1)}


def dealt_out(world: World, indices: Sequence[int], size: int) -> Iterator[list[int]]:
    """This rank's part in pieces of ``size``, as many on every rank (some empty): a sharded model needs all ranks each time."""
    rounds = math.ceil(math.ceil(len(indices) / world.size) / size)
    mine = world.share(list(indices))
    yield from (mine[turn * size : (turn + 1) * size] for turn in range(rounds))
