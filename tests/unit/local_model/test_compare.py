"""The tolerance table, and the verdict."""

from __future__ import annotations

import pytest

from runner.local_model.compare import COARSENESS, RELATIVE, allowed_difference, compare
from runner.local_model.messages import Measured, RowDifference


def measured(*rows: tuple[float, float | None]) -> Measured:
    agree = sum(gap is None for _, gap in rows)
    found = tuple(RowDifference(difference, gap, here="b", there="a") for difference, gap in rows)
    return Measured(found, scale=1.0, agree=agree, answers=len(rows))


@pytest.mark.parametrize(
    ("reference", "dtype", "device", "scale", "override", "expected"),
    [
        ("float32", "float32", "cpu", 0.1, None, 5e-4),
        ("float32", "float32", "cpu", 10.0, None, 5e-3),
        ("bfloat16", "float32", "mps", 10.0, None, 0.5),
        ("float32", "bfloat16", "mps", 10.0, None, 0.5),
        ("float16", "bfloat16", "cuda", 1.0, None, 0.05),
        ("bfloat16", "float32", "mps", 10.0, 0.01, 0.01),
    ],
)
def test_the_coarsest_dtype_and_the_device_set_the_limit(
    reference: str, dtype: str, device: str, scale: float, override: float | None, expected: float
) -> None:
    assert allowed_difference((reference, dtype), device, scale, override) == pytest.approx(expected)


def test_every_dtype_and_device_has_a_limit() -> None:
    assert set(RELATIVE) == {(dtype, device) for dtype in COARSENESS for device in ("cpu", "mps", "cuda")}


def test_answers_within_the_limit_pass() -> None:
    verdict = compare(measured((0.01, None), (0.04, None)), 0.05)
    assert not verdict.problems
    assert (verdict.difference, verdict.worst_row, verdict.agree, verdict.answers) == (0.04, 2, 2, 2)


def test_the_worst_row_is_named() -> None:
    verdict = compare(measured((0.01, None), (0.9, None), (0.06, None)), 0.05)
    assert verdict.worst_row == 2
    assert verdict.problems == ("row 2 differs by 0.9 where 0.05 is allowed, and 2 of 3 rows differ too much",)


def test_a_label_may_differ_only_where_both_were_as_good_as_equal() -> None:
    assert not compare(measured((0.04, 0.09)), 0.05).problems
    assert compare(measured((0.04, 0.11)), 0.05).problems == ("row 1 is b here and a on the box, by a logit of 0.11",)
