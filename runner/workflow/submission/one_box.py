"""What a submission knows of one box: what it has prepared there for one run serves the next ones of the same kind without another look."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from runner.domain.answers.box import Box
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport.link import Link
from runner.workflow.submission import place
from runner.workflow.submission.forecast_once import ForecastOnce
from runner.workflow.submission.plan import Plan
from runner.workflow.submission.push import Pushed


@dataclass(frozen=True)
class Ready:
    """The interpreter for a run, and where everything is that it needs; what of the code a launch changed may differ from the plan."""

    interpreter: str
    pushed: Pushed


class OneBox:
    """Of one box: which kinds of run (``Plan.kind``) it is ready for, and what was told of it. Used by one thread."""

    def __init__(self, jobs: Sequence[Job], *, despite_forecast: bool, tell_place: bool = True) -> None:
        self.forecast = ForecastOnce(jobs, despite=despite_forecast)
        self._tell_place = tell_place
        self._ready: dict[Hashable, Ready] = {}
        self._changing: set[Hashable] = set()
        self._warned: set[str] = set()

    def ready_for(self, plan: Plan) -> Ready | None:
        """What serves a run of this plan, if one of its kind was started here before."""
        return self._ready.get(plan.kind)

    def note_started(self, run: Run, plan: Plan, ready: Ready) -> None:
        """The runs of this kind that follow take what this one has, its code too; not where the code was edited while it was sent."""
        code = ready.pushed.code
        same = code is None or (plan.code is not None and run.code == code.digest == plan.code.digest)
        if same and plan.kind not in self._changing and plan.outputs is None:
            link_from = run.run_id if code else None
            self._ready[plan.kind] = replace(ready, pushed=replace(ready.pushed, attempt=None, link_from=link_from))

    def note_changed(self, plan: Plan) -> None:
        """Programs of this kind write into their own code, so no run takes the code of another without a look at it."""
        self._ready.pop(plan.kind, None)
        self._changing.add(plan.kind)

    def tell_place(self, link: Link, box: Box, volume: str | None, report: Reporter) -> None:
        """Says once where gpurun works on the box."""
        if self._tell_place:
            place.tell_place(link, box, volume, report)
            self._tell_place = False

    def warn(self, plan: Plan, report: Reporter) -> None:
        """Warns of what is allowed and probably not meant, of each thing once."""
        for warning in plan.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                report.warn(warning)
