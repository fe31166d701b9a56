"""The band over the repeats of an experiment is what numpy would say, at steps that all of them reach."""

from __future__ import annotations

import math
import random

import numpy
import pytest

from runner.domain.comparison.bands import band
from runner.domain.history import Curve


def a_curve(dice: random.Random, start: float) -> Curve:
    """A curve over a part of the steps, with gaps."""
    curve = Curve()
    for step in range(dice.randrange(0, 30), 200, dice.choice([1, 1, 2, 7])):
        if dice.random() < 0.9:
            curve.append(
                step,
                start + 2.0 * step,
                dice.choice([dice.gauss(0, 1), math.nan]) if step % 5 == 0 else dice.gauss(0, 1),
            )
    return curve


@pytest.mark.parametrize("seed", range(40))
def test_a_band_is_the_mean_and_the_sample_deviation_of_what_lies_between_the_points(seed: int) -> None:
    dice = random.Random(seed)
    starts = [dice.uniform(0, 1e9) for _ in range(dice.randrange(2, 6))]
    curves = [a_curve(dice, start) for start in starts]
    points = dice.choice([2, 10, 1000])
    found = band(list(zip(curves, starts, strict=True)), points)
    assert found is not None and 0 < len(found.steps) <= points
    assert list(found.steps) == sorted(set(found.steps))
    rows = []
    for curve in curves:
        numbers = [
            (step, value) for step, value in zip(curve.steps, curve.values, strict=True) if not math.isnan(value)
        ]
        assert numbers[0][0] <= found.steps[0] and found.steps[-1] <= numbers[-1][0]
        rows.append(numpy.interp(found.steps, [step for step, _ in numbers], [value for _, value in numbers]))
    assert numpy.allclose(found.means, numpy.mean(rows, axis=0))
    assert numpy.allclose(found.deviations, numpy.std(rows, axis=0, ddof=1))
    assert numpy.allclose(found.seconds, [2.0 * step for step in found.steps], atol=1e-5)


def test_there_is_no_band_over_one_curve_or_over_curves_that_share_no_step() -> None:
    early, late, empty = Curve(), Curve(), Curve()
    early.append(1, 1.0, 1.0)
    late.append(5, 1.0, 1.0)
    for curves in ([early], [early, late], [early, empty], []):
        assert band([(curve, 0.0) for curve in curves], 10) is None
