"""Fixtures for all tests, and the figures they measure."""

import os
import signal

import pytest

from runner.cli.audience import AGENT_VARIABLES
from tests.support.boxes.provider_box import rent as rent
from tests.support.cli import gpurun as gpurun
from tests.support.cli import job as job
from tests.support.figures import Gathered
from tests.support.figures import figure as figure
from tests.support.hub import hub as hub
from tests.support.trials import Counted
from tests.support.trials import chance as chance

# Whoever lets a coding agent run the tests gets the results that everybody gets.
for name in AGENT_VARIABLES:
    os.environ.pop(name, None)
# A shell lets its background jobs ignore Ctrl-C, and all that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Training listens to these until its process ends (remote_payload/train/signals.py); here the process goes on to the next test.
HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}


@pytest.fixture(autouse=True)
def own_signals() -> None:
    """Every test begins with the handlers of a new process, whatever trained before it in this one, a module's fixture too."""
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Gathered(), "figures")
    config.pluginmanager.register(Counted(), "trials")
