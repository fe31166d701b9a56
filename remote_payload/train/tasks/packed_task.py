"""The task of learning documents, packed: no padding goes through the model, and no document sees another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from remote_payload.train.data.batching import epoch_order
from remote_payload.train.data.packing import Document, first_fit_decreasing, pack
from remote_payload.train.distributed import World
from remote_payload.train.loop.micro_batch import release_memory
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.causal import TokenLoss
from remote_payload.train.model.precision import autocast
from remote_payload.train.tasks.sums import LossFunction, loss_of_the_model, token_metrics, token_sums


class TokenScored:
    """A ``ScoredTask`` whose ``loss`` gives a ``TokenLoss``."""

    scores_width = 2

    def scores(self, batch: MicroBatch, loss: TokenLoss) -> Tensor:
        """How many tokens count, and how many of them were predicted."""
        return torch.stack([loss.count.double(), loss.correct.double()])

    def figures(self, scores: list[float]) -> dict[str, float]:
        tokens, correct = scores
        return {"token_accuracy": correct / max(tokens, 1.0)}


class PackedTask(TokenScored):
    """A ``Task`` over documents of at most ``max_length`` tokens; one step is ``batch`` documents, ``loss`` is the recipe's.

    A micro-batch of so many rows of full length has room for ``rows * max_length`` tokens, which any number of shorter
    documents may share.
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
        loss: LossFunction = loss_of_the_model,
        answers: Callable[[nn.Module], dict[str, float]] | None = None,
    ) -> None:
        """``answers`` measures what a model writes; every rank calls it."""
        self.world, self.documents, self.held_out, self.answers = world, documents, held_out, answers
        self.batch, self.max_length, self.seed = batch, max_length, seed
        self.loss_function, self.autocast = loss, autocast(world.device, dtype)
        self.steps_per_epoch = math.ceil(len(documents) / batch)

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        """The epoch's documents in an order that depends on seed and epoch alone, ``batch`` at a time, the rest last."""
        order = epoch_order(len(self.documents), self.seed, epoch)
        for step in range(start, self.steps_per_epoch):
            yield order[step * self.batch : (step + 1) * self.batch]

    def micro_batches(self, step: list[int], micro_batch_rows: int) -> list[MicroBatch]:
        """This rank's documents of the step; they are dealt out by length, so that all ranks have about as much to do."""
        longest_first = sorted(step, key=lambda index: (-len(self.documents[index]), index))
        mine = [self.documents[index] for index in self.world.share(longest_first)]
        return packed_micro_batches(mine, micro_batch_rows * self.max_length)

    def heaviest(self, micro_batch_rows: int) -> MicroBatch:
        """As many tokens as a micro-batch of so many rows, or a whole step of the longest documents, can have."""
        share = math.ceil(self.batch / self.world.size)
        lengths = sorted(map(len, self.documents), reverse=True)
        tokens = min(micro_batch_rows * self.max_length, sum(lengths[:share]))
        pieces = [min(lengths[0], tokens - at) for at in range(0, tokens, lengths[0])]
        return collate([Document([0] * length, [True] * length) for length in pieces])

    def loss(self, model: nn.Module, batch: MicroBatch) -> TokenLoss:
        """The recipe's loss of a micro-batch on this rank's device, matrix products in the task's dtype."""
        with self.autocast:
            return self.loss_function(model, batch)

    def evaluate(self, model: nn.Module, micro_batch_rows: int) -> dict[str, float]:
        """``measure`` of the held-out documents, and what the model's answers are like where that was asked for."""
        found = self.measure(model, self.held_out, micro_batch_rows)
        return {**found, **self.answers(model)} if self.answers else found

    def measure(self, model: nn.Module, documents: Sequence[Document], micro_batch_rows: int) -> dict[str, float]:
        """Over all ranks, of these documents: mean ``loss`` in nats a token, ``perplexity``, ``token_accuracy``.

        A rank that runs out of memory continues with half the rows. Raises OutOfMemoryError when one row does not fit.
        """
        mine, sums = self.world.share(list(documents)), None
        while sums is None:
            try:
                batches = packed_micro_batches(mine, micro_batch_rows * self.max_length)
                sums = token_sums(self.loss, model, batches, self.world.device)
            except torch.OutOfMemoryError:
                if micro_batch_rows == 1:
                    raise
                micro_batch_rows //= 2
                release_memory()
        return token_metrics(self.world, sums)


def packed_micro_batches(documents: Sequence[Document], capacity: int) -> list[MicroBatch]:
    """The documents in micro-batches of at most ``capacity`` tokens each."""
    groups = first_fit_decreasing([len(document) for document in documents], capacity)
    return [collate([documents[index] for index in group]) for group in groups]


def collate(documents: Sequence[Document]) -> MicroBatch:
    """One packed micro-batch."""
    return MicroBatch(pack(documents), sum(map(len, documents)))
