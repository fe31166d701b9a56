"""Ragged texts into steps and micro-batches with little padding. The order is a function of (seed, epoch) and nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence

POOL = 8  # steps' worth of texts that are sorted together: long enough for like lengths, short enough to stay random


def epoch_steps(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of the texts of each optimizer step of an epoch, ``size`` a step (the last one may be smaller), each text once.

    Texts are shuffled, sorted by length within pools of a few steps, and the steps shuffled again: a step holds texts of like
    length, and which ones is random.
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


def cut(lengths: Sequence[int], budget: int, overhead: int) -> list[tuple[int, int]]:
    """Cuts texts of descending length into consecutive micro-batches ``(start, end)`` of at most ``budget`` padded tokens.

    Of all ways to cut, the one with the least padded tokens plus ``overhead`` a micro-batch, where ``overhead`` is what starting
    one costs, in tokens. A text longer than the budget gets a micro-batch of its own.
    """
    best = [0.0] + [float("inf")] * len(lengths)  # cost of the first n texts
    origin = [0] * (len(lengths) + 1)
    for end in range(1, len(lengths) + 1):
        for start in range(end - 1, -1, -1):
            padded = lengths[start] * (end - start)
            if padded > budget and end - start > 1:
                break  # going further back only makes it longer
            if best[start] + padded + overhead < best[end]:
                best[end], origin[end] = best[start] + padded + overhead, start
    cuts, end = [], len(lengths)
    while end:
        cuts.append((origin[end], end))
        end = origin[end]
    return cuts[::-1]
