"""The task of learning rows: pre-tokenised ones of one length, or documents packed so that none sees another.

A row is one example: ``batch.size`` counts rows, the micro-batch counts rows, an epoch passes each once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn

from remote_payload.settings.common import CommonSettings
from remote_payload.train.data.batching import epoch_order
from remote_payload.train.data.packing import IGNORED, Document, counted_positions, first_fit_decreasing
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.causal import TokenLoss
from remote_payload.train.model.precision import autocast
from remote_payload.train.tasks.packed_task import TokenScored, collate
from remote_payload.train.tasks.sums import LossFunction, loss_of_the_model, token_metrics, token_sums


class Rows(Protocol):
    """Rows by number. ``fixed_shapes``: as many rows always make a micro-batch of the same shape."""

    fixed_shapes: bool

    def __len__(self) -> int: ...

    def collate(self, indices: Sequence[int]) -> MicroBatch:
        """These rows as one micro-batch, with what ``CausalLoss`` takes: ``input_ids``, ``targets`` and the positions ``counted``."""

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

    def collate(self, indices: Sequence[int]) -> MicroBatch:
        ids = torch.from_numpy(self.ids[list(indices)].astype(np.int64))
        targets = torch.full_like(ids, IGNORED)
        targets[:, :-1] = ids[:, 1:]
        tensors = {"input_ids": ids, "targets": targets, "counted": counted_positions(targets)}
        return MicroBatch(tensors, ids.numel())


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

    def collate(self, indices: Sequence[int]) -> MicroBatch:
        return collate([self.documents[document] for document in self.documents_of(indices)])


class RowTask(TokenScored):
    """Next-token prediction on rows, ``loss`` is the recipe's; ``measure(model, rows)`` is what an evaluation reports.

    With fixed shapes the last step of an epoch is left out when it would be smaller than the others (other rows each epoch).
    """

    def __init__(
        self,
        settings: CommonSettings,
        world: World,
        rows: Rows,
        compute: torch.dtype,
        measure: Callable[[nn.Module, int], dict[str, float]],
        loss: LossFunction = loss_of_the_model,
    ) -> None:
        self.rows, self.world, self.measure = rows, world, measure
        self.loss_function, self.autocast = loss, autocast(world.device, compute)
        self.seed, self.batch, self.fixed_shapes = settings.seed, settings.batch.size, rows.fixed_shapes
        steps = len(rows) / self.batch
        self.steps_per_epoch = math.floor(steps) if rows.fixed_shapes else math.ceil(steps)
        if not self.steps_per_epoch:
            raise InputError(f"settings.batch.size: {self.batch} rows, but the data is {len(rows)}")

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        order = epoch_order(len(self.rows), self.seed, epoch)
        for step in range(start, self.steps_per_epoch):
            yield order[step * self.batch : (step + 1) * self.batch]

    def micro_batches(self, step: list[int], micro_batch_rows: int) -> list[MicroBatch]:
        mine = self.world.share(step)
        return [self.rows.collate(mine[at : at + micro_batch_rows]) for at in range(0, len(mine), micro_batch_rows)]

    def most_micro_batches(self, step: list[int], micro_batch_rows: int) -> int:
        return math.ceil(math.ceil(len(step) / self.world.size) / micro_batch_rows)

    def heaviest(self, micro_batch_rows: int) -> MicroBatch:
        return self.rows.collate([self.rows.longest] * micro_batch_rows)

    def loss(self, model: nn.Module, batch: MicroBatch) -> TokenLoss:
        """The recipe's loss of a micro-batch on this rank's device, matrix products in the task's dtype."""
        with self.autocast:
            return self.loss_function(model, batch)

    def evaluate(self, model: nn.Module, micro_batch_rows: int) -> dict[str, float]:
        return self.measure(model, micro_batch_rows)

    def measure_rows(self, model: nn.Module, held_out: Rows, count: int, micro_batch_rows: int) -> dict[str, float]:
        """``loss`` (nats a token), ``perplexity``, ``token_accuracy`` over the first ``count`` rows of ``held_out``, all ranks together."""
        turns = dealt_out(self.world, range(count), micro_batch_rows)
        batches = (held_out.collate(turn) if turn else uncounted(held_out.collate([0])) for turn in turns)
        return token_metrics(self.world, token_sums(self.loss, model, batches, self.world.device))


def uncounted(batch: MicroBatch) -> MicroBatch:
    """The same batch with no target that counts, for a rank without rows of its own: it adds zeros to every sum."""
    targets = torch.full_like(batch.tensors["targets"], IGNORED)
    return MicroBatch({**batch.tensors, "targets": targets, "counted": counted_positions(targets)}, 0)


def dealt_out(world: World, indices: Sequence[int], micro_batch_rows: int) -> Iterator[list[int]]:
    """This rank's part in pieces of ``micro_batch_rows``, as many on every rank (some empty): a sharded model needs all ranks each time."""
    rounds = math.ceil(math.ceil(len(indices) / world.size) / micro_batch_rows)
    mine = world.share(list(indices))
    yield from (mine[turn * micro_batch_rows : (turn + 1) * micro_batch_rows] for turn in range(rounds))
