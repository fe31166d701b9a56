"""A classifier's probabilities for many texts, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from remote_payload.train.data.batching import length_batches
from remote_payload.train.distributed import copied
from remote_payload.train.inference.target import Target

BATCH_TOKENS = {"cuda": 65_536, "mps": 8_192}  # padding included
BATCH_TOKENS_ELSEWHERE = 2_048  # more does not fit a core's cache, and is slower
WIDTHS = {"cuda": 8, "mps": 64}  # a batch is as wide as a multiple of it: each new shape is compiled, or tuned


@dataclass(frozen=True)
class Tokens:
    """The token ids of texts; ``cut[i]`` says whether text ``i`` was longer than the model takes."""

    ids: list[list[int]]
    cut: list[bool]


def tokens_of(target: Target, texts: Sequence[str]) -> Tokens:
    """Texts to token ids with the tokenizer's own special tokens, at most ``max_length`` of each."""
    if not texts:
        return Tokens([], [])
    encoded = target.tokenizer(list(texts), truncation=True, max_length=target.max_length)
    if not target.tokenizer.is_fast:
        return Tokens(encoded["input_ids"], [len(ids) == target.max_length for ids in encoded["input_ids"]])
    return Tokens(encoded["input_ids"], [bool(each.overflowing) for each in encoded.encodings])


@torch.inference_mode()
def probabilities(target: Target, texts: Sequence[Sequence[int]]) -> Tensor:
    """``[texts, classes]`` in fp32 on the CPU, in the order of the texts (token ids). A batch that does not fit in memory is repeated in
    halves; raises torch.OutOfMemoryError when a single text does not fit."""
    kind = target.device.type
    step = WIDTHS.get(kind, 1)
    widths = [min(-(-len(ids) // step) * step, max(target.max_length, len(ids))) for ids in texts]
    waiting = length_batches(widths, BATCH_TOKENS.get(kind, BATCH_TOKENS_ELSEWHERE))[::-1]
    found = torch.empty(len(texts), len(target.labels))
    pending: list[tuple[list[int], Tensor]] = []  # results that are still on the device
    while waiting:
        rows = waiting.pop()
        try:
            pending.append((rows, _batch(target, [texts[row] for row in rows], widths[rows[0]])))
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            middle = len(rows) // 2
            waiting += [rows[middle:], rows[:middle]]
    for rows, scored in pending:
        found[rows] = scored.cpu()
    return found


def _batch(target: Target, texts: Sequence[Sequence[int]], width: int) -> Tensor:
    pad = target.tokenizer.pad_token_id or 0
    ids = torch.tensor([[*each, *[pad] * (width - len(each))] for each in texts])
    lengths = torch.tensor([len(each) for each in texts])
    mask = (torch.arange(width) < lengths[:, None]).long()
    padded = int(lengths.min()) < width
    return target.logits(copied(ids, target.device), copied(mask, target.device), padded).softmax(-1)
