"""Fixtures for all tests, and the figures they measure."""

import pytest

from tests.support.cli import gpurun as gpurun
from tests.support.cli import job as job
from tests.support.figures import Gathered
from tests.support.figures import figure as figure
from tests.support.hub import hub as hub


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Gathered(), "figures")


# These name the same runs, and a run's lock lies in one place a machine: one worker takes them one after the other.
# test_stop.py breeds processes by the thousand, which nobody else should have beside them.
SAME_RUNS = {
    "test_clean.py",
    "test_locks.py",
    "test_manifest.py",
    "test_probe.py",
    "test_slot.py",
    "test_stale.py",
    "test_state.py",
    "test_stop.py",
}


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in SAME_RUNS or item.path.name.startswith("test_agent_"):
            item.add_marker(pytest.mark.xdist_group("same runs"))
