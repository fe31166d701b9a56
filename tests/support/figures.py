"""Figures that tests measure, each with its bound: gathered over all processes of the run, printed at its end, and failed where missed.

A figure may be measured by several tests: the worst of them is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import pytest

Record = Callable[..., None]
_PROPERTY = "figure"


@dataclass(frozen=True)
class Figure:
    """One measurement. ``value`` may be at most ``bound``, or at least with ``at_least``; None for a figure without a bound."""

    name: str
    value: float
    bound: float | None
    unit: str
    at_least: bool

    @property
    def missed(self) -> bool:
        if self.bound is None:
            return False
        return self.value < self.bound if self.at_least else self.value > self.bound

    def line(self, measured: int) -> str:
        """``name: value unit (bound)``."""
        limit = "no bound" if self.bound is None else f"{'≥' if self.at_least else '≤'} {_shown(self.bound, self.unit)}"
        if self.bound == 0:
            limit = _shown(0, self.unit)
        times = f", worst of {measured}" if measured > 1 else ""
        return f"{self.name}: {_shown(self.value, self.unit)}{times} ({limit})"


def _shown(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {unit}".strip()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Record:
    """``figure(name, value, bound, unit="", at_least=False)``: records, and fails the test when the bound is missed."""

    def record(name: str, value: float, bound: float | None, unit: str = "", *, at_least: bool = False) -> None:
        measured = Figure(name, float(value), bound, unit, at_least)
        request.node.user_properties.append((_PROPERTY, asdict(measured)))  # pytest-xdist carries these to the parent
        assert not measured.missed, measured.line(1)

    return record


class Gathered:
    """The plugin's other half: what all tests reported, and the lines at the end."""

    def __init__(self) -> None:
        self.figures: dict[str, list[Figure]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == _PROPERTY and isinstance(value, dict):
                measured = Figure(**value)
                self.figures.setdefault(measured.name, []).append(measured)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.figures:
            return
        terminalreporter.section("figures")
        for name in sorted(self.figures):
            measured = self.figures[name]
            worst = (min if measured[0].at_least else max)(measured, key=lambda each: each.value)
            terminalreporter.line(worst.line(len(measured)) + ("  MISSED" if worst.missed else ""))
