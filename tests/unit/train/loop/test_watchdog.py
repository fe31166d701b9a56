from __future__ import annotations

from typing import Any

import pytest

from remote_payload.train.loop.watchdog import StallDetector, Watchdog


class Flags:
    """The part of Telemetry that a watchdog uses."""

    def __init__(self) -> None:
        self.raised: list[str] = []

    def flag(self, name: str, message: str) -> None:
        self.raised.append(name)


def flags(steps: list[dict[str, Any]]) -> list[str]:
    telemetry = Flags()
    watchdog = Watchdog(telemetry)  # type: ignore[arg-type]
    for step in steps:
        watchdog.step({"loss": 1.0, "tokens_per_second": 1000.0, "mfu": None, **step})
    return telemetry.raised


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"loss": 2.0 - 0.01 * n} for n in range(100)], []),
        ([{"loss": 2.0}] * 40 + [{"loss": 3.5}] * 40, ["loss_rising"]),
        ([{"loss": 0.01}] * 40 + [{"loss": 0.03}] * 40, []),  # tripled, and still next to nothing
        ([{"loss": 2.0}] * 40 + [{"loss": 9.0}] + [{"loss": 2.0}] * 40, []),  # one bad batch
        (
            [{"loss": 2.0}] * 40 + [{"loss": 3.5}] * 40 + [{"loss": 2.0}] * 40 + [{"loss": 3.5}] * 40,
            ["loss_rising"] * 2,
        ),
        ([{}] * 40 + [{"tokens_per_second": 400.0}] * 40, ["step_time_growing"]),
        ([{}] * 40 + [{"tokens_per_second": 600.0}] * 40, []),
        ([{"mfu": 0.02}] * 60, ["mfu_low"]),
        ([{"mfu": 0.02}] * 30 + [{"mfu": 0.4}] * 60, []),  # compiling and caching make the first steps slow
        ([{"mfu": 0.4}] * 60, []),
    ],
)
def test_what_would_alarm_a_watcher_is_flagged_once(steps: list[dict[str, Any]], expected: list[str]) -> None:
    assert flags(steps) == expected


def test_no_step_for_much_longer_than_steps_take_is_no_progress() -> None:
    stall_detector = StallDetector()
    for moment in range(10):
        stall_detector.stepped(float(moment))
    assert not stall_detector.too_long(9.0 + 299)
    assert stall_detector.too_long(9.0 + 301), "five minutes are too long for steps of a second"
    assert not stall_detector.too_long(9.0 + 400), "said once is enough"
    stall_detector.stepped(500.0)
    assert stall_detector.too_long(500.0 + 5000)


def test_long_steps_may_take_long() -> None:
    stall_detector = StallDetector()
    for moment in range(0, 1000, 100):
        stall_detector.stepped(float(moment))
    assert not stall_detector.too_long(900 + 999)
    assert stall_detector.too_long(900 + 1001)


def test_before_the_first_step_nothing_is_expected() -> None:
    assert not StallDetector().too_long(1e9)
