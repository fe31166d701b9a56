"""Work over a link to a run's box that goes on through sleep and lost networks: the link is opened again, with growing pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from runner.domain.errors import ConnectFailed
from runner.domain.progress import Reporter, Silent
from runner.domain.run import Run
from runner.workflow.connect import connect_to_run

if TYPE_CHECKING:
    from runner.transport.link import Link

T = TypeVar("T")
LONGEST_PAUSE = 30.0  # seconds between two tries to reconnect


def through_lost_links(
    run: Run,
    report: Reporter,
    visit: Callable[[Link], T],
    *,
    progress: Callable[[], int],
    give_up: Callable[[], bool] = lambda: False,
) -> T:
    """What ``visit`` gives once it returns. Where the link breaks before, it is called again with a new one.

    ``progress`` is a number that grows while a link is of use: then the loss of the next one is told again, and its pauses are short.
    Tried until ``give_up`` says so before a try. Raises the HostErrors that trying again does not mend.
    """
    lost_at: float | None = None
    pause = 0.5
    while True:
        before = progress()
        try:
            with connect_to_run(run, report if lost_at is None else Silent()) as link:
                if lost_at is not None:
                    report.note(f"connected again after {time.monotonic() - lost_at:.0f}s")
                return visit(link)
        except ConnectFailed as error:
            if not error.retryable or give_up():
                raise
            if lost_at is None or progress() > before:
                lost_at, pause = time.monotonic(), 0.5
                report.warn(f"{error.message}; trying again (the run goes on)")
            time.sleep(pause * random.uniform(0.7, 1.3))  # the link itself cannot be awaited, only tried
            pause = min(pause * 2, LONGEST_PAUSE)
