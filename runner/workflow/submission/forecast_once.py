"""The forecasts of a submission: all its runs are judged once, by the box that the first of them meets, before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.domain.answers.box import Box
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.workflow.submission.models import Models, read_models, runs_with_forecast

if TYPE_CHECKING:
    from runner.workflow.submission.forecast import Forecast


class ForecastOnce:
    """The runs that are still to be judged; none of a job without a forecast. ``despite``: what does not fit is a warning."""

    def __init__(self, jobs: Sequence[Job], *, despite: bool) -> None:
        self._runs = runs_with_forecast(jobs)
        self._despite = despite
        self._told: list[tuple[Job, Forecast]] = []

    def read_models(self) -> Models:
        """The models of these runs; it takes a request to the hub where one is not on this machine."""
        return read_models(self._runs)

    def tell(self, box: Box, models: Models, report: Reporter) -> None:
        """Prints the forecasts, the first time. Raises BoxNotReady where a run cannot fit."""
        if not self._runs:
            return
        from runner.workflow.submission import verdicts  # a command job does not load what it takes

        self._told = verdicts.tell(self._runs, box, models, report, despite=self._despite)
        self._runs = []

    def disk_of(self, job: Job) -> int:
        """Bytes of checkpoints and the finished model that a run will write; 0 where that is not known, or its forecast is not to count."""
        found = [] if self._despite else [forecast.disk_of(job) for told, forecast in self._told if told == job]
        return found[0] if found else 0
