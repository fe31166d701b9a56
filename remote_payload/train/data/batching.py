"""Texts of different lengths in steps and micro-batches with little padding. The order depends on (seed, epoch) alone.

Also texts in batches for the tokenizer: it encodes the texts of one call on all cores, one text on one core.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
AT_ONCE = 1 << 20  # characters in one call of a tokenizer; with offsets a token takes some 300 bytes until it returns
POOL = 8  # steps whose texts are sorted together: enough to find texts of similar length, few enough to stay random


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers below ``count`` in the order in which an epoch takes them: of documents, pairs and rows alike, packed or not."""
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    return order


def epoch_steps(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """The texts of each optimizer step of an epoch, as indices: ``size`` a step (the last may have fewer), each text once.

    Texts are shuffled, sorted by length within pools of a few steps, and the steps are shuffled again: so a step has texts of
    similar length, chosen at random.
    """
    generator = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    generator.shuffle(order)
    full = len(order) - len(order) % size
    steps = []
    for start in range(0, full, POOL * size):
        pool = sorted(order[start : min(start + POOL * size, full)], key=lambda index: lengths[index])
        steps += [pool[at : at + size] for at in range(0, len(pool), size)]
    generator.shuffle(steps)
    return [*steps, order[full:]] if full < len(order) else steps


def split_by_padding(lengths: Sequence[int], budget: int, overhead: int) -> list[tuple[int, int]]:
    """Splits texts of descending length into consecutive micro-batches ``(start, end)`` of at most ``budget`` padded tokens.

    Of all splits it is the one with the fewest padded tokens, where each micro-batch counts as ``overhead`` tokens more: the time
    that starting it takes. A text longer than the budget gets a micro-batch of its own. Dynamic programming over the first n texts.
    """
    best = [0.0] + [float("inf")] * len(lengths)  # cost of the first n texts
    origin = [0] * (len(lengths) + 1)
    for end in range(1, len(lengths) + 1):
        for start in range(end - 1, -1, -1):
            padded = lengths[start] * (end - start)
            if padded > budget and end - start > 1:
                break  # an earlier start only makes it longer
            if best[start] + padded + overhead < best[end]:
                best[end], origin[end] = best[start] + padded + overhead, start
    parts, end = [], len(lengths)
    while end:
        parts.append((origin[end], end))
        end = origin[end]
    return parts[::-1]


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in groups whose rows × longest stays within the budget, the longest first; what is longer alone is a group of its own."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def batches_of(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """The items in order, in lists that end with the item at which their sizes reach ``limit``: memory is bounded for any number."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += size(item)
        if held >= limit:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
