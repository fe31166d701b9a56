"""The loss of each document by itself: what two models can be compared by, example by example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from remote_payload.train.data.packing import IGNORED, Document, counted_positions
from remote_payload.train.distributed import copied
from remote_payload.train.loop.micro_batch import release_memory
from remote_payload.train.model.causal import CausalLoss, Network, TokenScores

BATCH_TOKENS = {"cuda": 32_768}  # padding included
BATCH_TOKENS_ELSEWHERE = 4_096


class DocumentScore(NamedTuple):
    """Of the tokens that count: the summed loss in nats, their number, and how many were the most probable ones."""

    loss: float
    tokens: int
    correct: int


@torch.no_grad()
def score_documents(
    network: Network, documents: Sequence[Document], progress: Callable[[int], None] = lambda done: None
) -> list[DocumentScore]:
    """Each document's score, in order. Rows are padded on the right, which no token of a causal model sees: so this holds for every
    architecture, packed attention or not. Raises InputError for an output head that is more than a matrix product.

    ``progress`` is told how many documents are done. A batch that runs out of memory is repeated in halves.
    """
    model, device = CausalLoss(network), network.device
    budget = BATCH_TOKENS.get(device.type, BATCH_TOKENS_ELSEWHERE)
    order = sorted(range(len(documents)), key=lambda index: -len(documents[index]))
    found: dict[int, DocumentScore] = {}
    while order:
        rows = max(1, budget // len(documents[order[0]]))
        batch = order[:rows]
        try:
            ids, targets = _rows([documents[index] for index in batch])
            counted = counted_positions(targets)
            scores = model(copied(ids, device), copied(targets, device), copied(counted, device), each_token=True)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            budget = len(documents[order[0]]) * (len(batch) // 2)
            release_memory()
            continue
        found.update(zip(batch, _by_document(scores, [documents[index] for index in batch]), strict=True))
        order = order[rows:]
        progress(len(found))
    return [found[index] for index in range(len(documents))]


def _rows(documents: Sequence[Document]) -> tuple[Tensor, Tensor]:
    """``[rows, longest]`` token ids and targets."""
    longest = max(map(len, documents))
    ids = torch.tensor([[*each.ids, *[0] * (longest - len(each))] for each in documents])
    targets = torch.tensor([[*each.targets, *[IGNORED] * (longest - len(each))] for each in documents])
    return ids, targets


def _by_document(scores: TokenScores, documents: Sequence[Document]) -> list[DocumentScore]:
    """The scores of all counted tokens, row by row, added up by document."""
    counts = [document.counted for document in documents]
    losses = (-scores.log_probability.double()).cpu().split(counts)
    right = scores.correct.cpu().split(counts)
    return [
        DocumentScore(float(loss.sum()), count, int(hits.sum()))
        for loss, hits, count in zip(losses, right, counts, strict=True)
    ]
