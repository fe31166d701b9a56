from __future__ import annotations

import math

import pytest

from remote_payload.settings.training import Schedule
from remote_payload.train.loop.schedule import due, rate, warmup_steps


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("constant", warmup=0), [1, 1, 1, 1, 1]),
        (Schedule("constant", warmup=2), [0.5, 1, 1, 1, 1]),
        (Schedule("linear", warmup=0), [1, 0.8, 0.6, 0.4, 0.2]),
        (Schedule("linear", warmup=0.2, final=0.5), [1, 1, 0.875, 0.75, 0.625]),
        (Schedule("cosine", warmup=1), [1, 1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]),
    ],
)
def test_the_rate_follows_its_shape(schedule: Schedule, expected: list[float]) -> None:
    assert [rate(schedule, step, 5) for step in range(5)] == pytest.approx(expected)


def test_warm_up_is_a_share_below_one_and_steps_from_one_on_and_never_everything() -> None:
    assert [warmup_steps(warmup, 100) for warmup in (0, 0.1, 1, 20, 500)] == [0, 10, 1, 20, 99]


@pytest.mark.parametrize(
    ("every_steps", "every_epochs", "per_epoch", "expected"),
    [
        (5, None, 10, [5, 10, 15, 20]),
        (5, 1.0, 10, [5, 10, 15, 20]),
        (None, 1.0, 10, [10, 20]),
        (None, 0.5, 10, [5, 10, 15, 20]),
        (None, 0.2, 7, [1, 3, 4, 6, 7, 8, 10, 11, 13, 14, 15, 17, 18, 20]),
        (None, 0.001, 3, list(range(1, 21))),
        (None, None, 10, []),
    ],
)
def test_what_is_due_falls_on_these_steps(
    every_steps: int | None, every_epochs: float | None, per_epoch: int, expected: list[int]
) -> None:
    assert [step for step in range(1, 21) if due(step, every_steps, every_epochs, per_epoch)] == expected
