"""Generated trials: one invariant, many random histories. The base seed is printed, and names every trial.

A failing trial is repeated by its seed and its test id: ``GPURUN_SEED=123 pytest 'tests/faults/generated/test_x.py::test_y[x-17]'``.
``make test`` runs the first few of each kind with the base seed 0, ``make faults`` runs all of them with a fresh base seed.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

VARIABLE = "GPURUN_SEED"
_PROPERTY = "trial"


def base_seed() -> int:
    """The seed that all trials of this run are derived from."""
    return int(os.environ.get(VARIABLE) or "0")


def trials(kind: str, *, quick: int, full: int) -> pytest.MarkDecorator:
    """Runs a test that takes ``seed`` (a string for ``random.Random``) ``full`` times; all but the first ``quick`` are marked slow."""
    return pytest.mark.parametrize(
        "seed",
        [
            pytest.param(f"{kind}-{number}", id=f"{kind}-{number}", marks=[] if number < quick else [pytest.mark.slow])
            for number in range(full)
        ],
    )


@pytest.fixture
def chance(seed: str, request: pytest.FixtureRequest) -> random.Random:
    """The random numbers of one trial; the trial is counted under its kind at the end of the run."""
    request.node.user_properties.append((_PROPERTY, seed.rpartition("-")[0]))
    return random.Random(f"{base_seed()}/{seed}")


class Counted:
    """The plugin that prints how many trials of each kind were run, how many failed, and the base seed."""

    def __init__(self) -> None:
        self.run: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, kind in report.user_properties:
            if name == _PROPERTY and (report.when == "call" or report.failed):
                self.run[str(kind)] += report.when == "call"
                self.failed[str(kind)] += report.failed

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.run:
            return
        terminalreporter.section("generated trials")
        for kind in sorted(self.run):
            terminalreporter.line(f"{kind}: {self.run[kind]:,} trials, {self.failed[kind]} violations")
        total, bad = sum(self.run.values()), sum(self.failed.values())
        terminalreporter.line(f"all: {total:,} trials, {bad} violations ({VARIABLE}={base_seed()})")
