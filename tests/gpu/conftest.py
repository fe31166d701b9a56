"""The GPU tests run on a real GPU (``make gpu``) and on one that computes nothing (``make null-gpu``), with the same code.

They need torch, transformers, peft and pytest: no sshd, no rsync, no network, and nothing of tests/conftest.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.gpu import devices
from tests.gpu.table import Table

# Training listens to these until its process ends; here the process goes on to the next test.
HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write the rows of the GPU tests to this file")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a process of pytest-xdist hands its rows to its parent
        config.pluginmanager.register(Table(config.getoption("--table")), "gpu-table")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    items = [item for item in items if here in item.path.parents]  # of all that were collected
    reason = devices.why_not() if items else None
    for item in items:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("real_arithmetic") and devices.is_null():
            item.add_marker(pytest.mark.skip(reason="the null GPU computes no values"))
        elif item.get_closest_marker("null_only") and not devices.is_null():
            item.add_marker(pytest.mark.skip(reason="about the null GPU itself"))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture
def device() -> devices.RealDevice | devices.NullDevice:
    """The GPU under test; for each test one of its own, with nothing on it."""
    return devices.NullDevice() if devices.is_null() else devices.RealDevice()
