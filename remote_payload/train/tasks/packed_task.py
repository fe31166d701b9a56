"""The task of learning documents, packed: no padding goes through the model, and no document sees another."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from remote_payload.train.data.packing import Document, first_fit_decreasing, pack
from remote_payload.train.distributed import World
from remote_payload.train.loop.micro_batch import release_memory
from remote_payload.train.loop.task import MicroBatch
from remote_payload.train.model.precision import autocast


class PackedTask:
    """A ``Task`` over documents of at most ``max_length`` tokens, for a ``CausalLoss``; one step is ``batch`` documents.

    ``size`` rows of full length are ``size * max_length`` tokens, which any number of shorter documents may share.
    """

    fixed_shapes = False

    def __init__(
        self,
        world: World,
        documents: Sequence[Document],
        held_out: Sequence[Document],
        *,
        batch: int,
        max_length: int,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.world, self.documents, self.held_out = world, documents, held_out
        self.batch, self.max_length, self.seed, self.dtype = batch, max_length, seed, dtype
        self.steps_per_epoch = math.ceil(len(documents) / batch)

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        """The epoch's documents in an order that depends on seed and epoch alone, ``batch`` at a time, the rest last."""
        order = list(range(len(self.documents)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        for step in range(start, self.steps_per_epoch):
            yield order[step * self.batch : (step + 1) * self.batch]

    def micro_batches(self, step: list[int], size: int) -> list[MicroBatch]:
        """This rank's documents of the step; they are dealt out by length, so that all ranks have about as much to do."""
        longest_first = sorted(step, key=lambda index: (-len(self.documents[index]), index))
        mine = [self.documents[index] for index in self.world.share(longest_first)]
        return packed_micro_batches(mine, size * self.max_length)

    def heaviest(self, size: int) -> MicroBatch:
        """As many tokens as a micro-batch of this size, or a whole step of the longest documents, can have."""
        share = math.ceil(self.batch / self.world.size)
        lengths = sorted(map(len, self.documents), reverse=True)
        tokens = min(size * self.max_length, sum(lengths[:share]))
        pieces = [min(lengths[0], tokens - at) for at in range(0, tokens, lengths[0])]
        return micro([Document([0] * length, [True] * length) for length in pieces])

    def loss(self, model: nn.Module, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        with autocast(self.world.device, self.dtype):
            result = model(**batch.tensors)
        return result.sum, result.count

    def evaluate(self, model: nn.Module, size: int) -> dict[str, float]:
        """``measure`` of the held-out documents."""
        return self.measure(model, self.held_out, size)

    def measure(self, model: nn.Module, documents: Sequence[Document], size: int) -> dict[str, float]:
        """Over all ranks, of these documents: mean ``loss`` in nats a token, ``perplexity``, ``token_accuracy``."""
        mine, sums = self.world.share(list(documents)), None
        while sums is None:
            try:
                sums = self._sums(model, mine, size * self.max_length)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                release_memory()
        loss, count, correct = self.world.sum(*sums.tolist())
        mean = loss / max(count, 1.0)
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700.0)),
            "token_accuracy": correct / max(count, 1.0),
        }

    @torch.no_grad()
    def _sums(self, model: nn.Module, documents: Sequence[Document], capacity: int) -> Tensor:
        """Loss, tokens that count and right guesses, added up batch by batch: nothing else is kept."""
        sums = torch.zeros(3, dtype=torch.float64, device=self.world.device)
        for batch in packed_micro_batches(documents, capacity):
            batch = batch.to(self.world.device)
            with autocast(self.world.device, self.dtype):
                sums += torch.stack([part.double() for part in model(**batch.tensors)])
        return sums


def packed_micro_batches(documents: Sequence[Document], capacity: int) -> list[MicroBatch]:
    """The documents in micro-batches of at most ``capacity`` tokens each."""
    groups = first_fit_decreasing([len(document) for document in documents], capacity)
    return [micro([documents[index] for index in group]) for group in groups]


def micro(documents: Sequence[Document]) -> MicroBatch:
    """One packed micro-batch."""
    lengths = [len(document) for document in documents]
    return MicroBatch({**pack(documents), "max_length_q": max(lengths)}, sum(lengths))
