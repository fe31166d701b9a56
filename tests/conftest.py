"""Fixtures for all tests, and the figures they measure."""

import signal

import pytest

from tests.support.cli import gpurun as gpurun
from tests.support.cli import job as job
from tests.support.figures import Gathered
from tests.support.figures import figure as figure
from tests.support.hub import hub as hub
from tests.support.trials import Counted
from tests.support.trials import chance as chance

# A shell lets its background jobs ignore Ctrl-C, and all that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Gathered(), "figures")
    config.pluginmanager.register(Counted(), "trials")
