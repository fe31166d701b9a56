"""What repeats of one experiment have in common: at each step the mean of their curves, and how far they are apart. Pure."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from runner.domain.history import Curve


@dataclass(frozen=True)
class Band:
    """``means[i]`` ± ``deviations[i]`` at ``steps[i]``, which the runs reached ``seconds[i]`` after their start, on average.

    A deviation is the sample standard deviation, divided by the number of runs - 1.
    """

    steps: Sequence[int]
    seconds: Sequence[float]
    means: Sequence[float]
    deviations: Sequence[float]


def band(curves: Sequence[tuple[Curve, float]], points: int) -> Band | None:
    """Over the steps that all of these curves reach, at most ``points`` of them; each curve comes with its start in epoch seconds.

    A curve that has no value at a step has the one on the straight line between its neighbours. None for fewer than two curves, and
    where they have no step in common.
    """
    known = [_numbers(curve, start) for curve, start in curves]
    if len(known) < 2 or not all(steps for steps, _, _ in known):
        return None
    first, last = max(steps[0] for steps, _, _ in known), min(steps[-1] for steps, _, _ in known)
    shared = sorted({step for steps, _, _ in known for step in steps if first <= step <= last})
    if not shared:
        return None
    wanted = (
        shared
        if len(shared) <= points
        else [shared[each * (len(shared) - 1) // (points - 1)] for each in range(points)]
    )
    means, deviations, seconds = [], [], []
    for step in wanted:
        found = [_at(step, steps, seconds_of, values) for steps, seconds_of, values in known]
        seconds.append(statistics.fmean(at for at, _ in found))
        means.append(statistics.fmean(value for _, value in found))
        deviations.append(statistics.stdev(value for _, value in found))
    return Band(wanted, seconds, means, deviations)


def _numbers(curve: Curve, start: float) -> tuple[list[int], list[float], list[float]]:
    """Steps, seconds and values of the points that are numbers; of several at one step the last."""
    found = {
        step: (at - start, value)
        for step, at, value in zip(curve.steps, curve.times, curve.values, strict=True)
        if not math.isnan(value)
    }
    steps = sorted(found)
    return steps, [found[step][0] for step in steps], [found[step][1] for step in steps]


def _at(step: int, steps: list[int], seconds: list[float], values: list[float]) -> tuple[float, float]:
    place = bisect_left(steps, step)
    if steps[place] == step:
        return seconds[place], values[place]
    before = place - 1
    share = (step - steps[before]) / (steps[place] - steps[before])
    return (
        seconds[before] + share * (seconds[place] - seconds[before]),
        values[before] + share * (values[place] - values[before]),
    )
