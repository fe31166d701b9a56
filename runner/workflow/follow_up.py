"""What ``submit --follow`` does once its runs have started: each one's log to the end, its outputs home, its model tested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from remote_payload.agent.wire.retention import REASON
from runner.domain.errors import GpurunError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.workflow.fetch import Fetched, fetch
from runner.workflow.observing.logs import show
from runner.workflow.observing.status import raise_for
from runner.workflow.reporting.write import leave_page
from runner.workflow.submission.records import interruption_explained

if TYPE_CHECKING:
    from runner.local_model.report import SmokeReport


@dataclass
class FollowedRun:
    """How far a run was followed; ``error`` is what ended that. ``models`` is None where no smoke test was made."""

    run: Run
    fetched: Fetched | None = None
    models: list[SmokeReport] | None = None
    error: GpurunError | None = None


class Display(Protocol):
    """Who is shown the results while the runs are followed."""

    def log(self, data: bytes) -> None:
        """The next bytes of the log."""

    def log_ended(self, run: Run) -> None:
        """Nothing more comes of the log."""

    def fetched(self, fetched: Fetched) -> None:
        """What a fetch brought."""

    def tested(self, report: SmokeReport) -> None:
        """What the smoke test measured of one model."""


def follow_up(runs: list[Run], report: Reporter, display: Display) -> list[FollowedRun]:
    """Follows each run in turn. A run that fails does not keep the others from coming home: its error is in the result."""
    followed = [FollowedRun(run) for run in runs]
    with interruption_explained(runs):
        for each in followed:
            try:
                _follow(each, report, display)
            except GpurunError as error:
                each.error = error
    return followed


def first_error(followed: Iterable[FollowedRun]) -> GpurunError | None:
    return next((each.error for each in followed if each.error), None)


def _follow(followed: FollowedRun, report: Reporter, display: Display) -> None:
    run = followed.run
    status = show(run, report, display.log, until_end=True, tail=None)
    display.log_ended(run)
    followed.fetched = fetch(run, report)
    display.fetched(followed.fetched)
    if status is not None:
        raise_for(status)
    removed = any(each.why.startswith(REASON) for each in followed.fetched.left_out)  # another run's model was kept
    if run.job.recipe and run.job.smoke_test.enabled and not removed:
        try:
            _smoke_test(followed, report, display)
        finally:
            leave_page(run, report)  # with the verdict


def _smoke_test(followed: FollowedRun, report: Reporter, display: Display) -> None:
    from runner.workflow.inference.smoke import raise_for as raise_for_models
    from runner.workflow.inference.smoke import smoke_test, target_of

    folder, _ = target_of(followed.run.run_id)
    followed.models = smoke_test(folder, report, run=followed.run, device="auto")
    for model in followed.models:
        display.tested(model)
    raise_for_models(followed.models)
