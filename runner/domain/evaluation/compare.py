"""Two models compared example by example: who gained, who lost, and how sure the difference is."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from remote_payload.settings.evaluate import is_more_better
from runner.domain.evaluation.read import Example

RESAMPLES = 2000
CONFIDENCE = 0.95
EQUAL = 1e-9  # differences below it are rounding


@dataclass(frozen=True)
class Difference:
    """One metric of ``examples`` examples that both have: ``mean`` is the one model's minus the other's, over examples.

    ``low`` and ``high`` are its 95 % interval. ``better`` and ``worse`` are the ids of the examples on which the one model is better or
    worse than the other, the largest differences first.
    """

    metric: str
    examples: int
    mean: float
    low: float
    high: float
    better: tuple[str, ...]
    worse: tuple[str, ...]

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def compare(ones: Sequence[Example], others: Sequence[Example], seed: int = 0) -> list[Difference]:
    """The difference of each metric that examples of both have and that has a better end; examples are matched by id."""
    known = {each.id: each for each in others}
    pairs = [(each.id, each.metrics, known[each.id].metrics) for each in ones if each.id in known]
    names = dict.fromkeys(name for _, one, other in pairs for name in one if name in other)
    found = (_difference(name, pairs, seed) for name in names if is_more_better(name) is not None)
    return list(found)


def _difference(
    metric: str, pairs: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]], seed: int
) -> Difference:
    both = {name: one[metric] - other[metric] for name, one, other in pairs if metric in one and metric in other}
    sign = 1 if is_more_better(metric) else -1
    ordered = sorted(both, key=lambda name: -abs(both[name]))
    low, high = bootstrap_interval(list(both.values()), seed)
    return Difference(
        metric, len(both), fmean(both.values()), low, high,
        tuple(name for name in ordered if sign * both[name] > EQUAL),
        tuple(name for name in ordered if sign * both[name] < -EQUAL),
    )  # fmt: skip


def bootstrap_interval(differences: Sequence[float], seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of paired differences (Efron 1979): examples are drawn with replacement
    ``resamples`` times, and the middle 95 % of the means kept. The same seed gives the same interval.
    """
    draw = random.Random(seed)
    count = len(differences)
    means = sorted(fmean(draw.choices(differences, k=count)) for _ in range(resamples))
    outside = int((1 - CONFIDENCE) / 2 * resamples)
    return means[outside], means[-1 - outside]
