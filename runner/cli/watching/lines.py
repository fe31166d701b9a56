"""A watch without a terminal: a line a minute for each run, and one for whatever happens in between. Pure: times are given."""

from __future__ import annotations

from runner.cli import figures
from runner.cli.watching.picture import Picture
from runner.workflow.observing.listing import describe, step_of

QUIET = ("phase", "ended")  # the first are many, the second is told as the run's state
EVERY = 60.0  # seconds between two lines about a run of which nothing else is told


class Lines:
    """What was told of one run, so that nothing is told twice."""

    def __init__(self) -> None:
        self._state = ""
        self._trouble = ""
        self._marks = 0.0  # the box's time of the newest mark that was told
        self._evaluations: dict[tuple[str, str], int] = {}
        self._told_at: float | None = None

    def new(self, picture: Picture, now: float) -> list[str]:
        """The lines that are due at ``now`` (epoch seconds)."""
        first = self._told_at is None
        changes, news = self._changes(picture), self._news(picture)
        told = changes if first else [*news, *changes]
        if not told and now - (self._told_at or 0.0) >= EVERY:
            told = [_summary(picture)]
        if told:
            self._told_at = now
        run_id = picture.seen.run.run_id
        return [f"{figures.second(now)}  {run_id}  {line}" for line in told]

    def _changes(self, picture: Picture) -> list[str]:
        """What became of the run and of the link to its box."""
        found = []
        state, trouble = describe(picture.seen.run), picture.trouble
        if state != self._state:
            found.append(_summary(picture))
        if trouble != self._trouble:
            found.append(trouble or "connected again")
        self._state, self._trouble = state, trouble
        return found

    def _news(self, picture: Picture) -> list[str]:
        """Checkpoints, flags and evaluations since the last time."""
        marks = [mark for mark in picture.history.marks if mark.at > self._marks and mark.kind not in QUIET]
        self._marks = max([self._marks, *(mark.at for mark in picture.history.marks)])
        found = [f"{mark.kind} {mark.text}" for mark in marks]
        by_step: dict[tuple[str, int], list[str]] = {}
        for name, metric, curve in picture.history.all_evaluations:
            if len(curve) and curve.steps[-1] != self._evaluations.get((name, metric), -1):
                self._evaluations[name, metric] = curve.steps[-1]
                by_step.setdefault((name, curve.steps[-1]), []).append(f"{metric} {curve.values[-1]:.4g}")
        return found + [f"{name} after step {step}: {', '.join(values)}" for (name, step), values in by_step.items()]


def _summary(picture: Picture) -> str:
    seen = picture.seen
    step = (seen.status.progress.get("step") if seen.status else None) or {}
    loss, speed, left, cost = step.get("loss"), step.get("tokens_per_second"), figures.left(seen), figures.cost(seen)
    parts = [
        describe(seen.run),
        step_of(seen.run),
        figures.metrics({"loss": loss}),
        f"{speed:,.0f} tokens/s" if figures.number(speed) is not None else "",
        f"left {left}" if left else "",
        f"cost {cost}" if cost else "",
    ]
    return "  ".join(part for part in parts if part)
