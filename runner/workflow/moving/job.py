"""The job of a run that moves: what belonged to its old box is not taken over."""

from __future__ import annotations

from dataclasses import replace

from runner.domain.errors import UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.run import Run


def for_another_box(job: Job, run: Run, host: str, overrides: tuple[str, ...], report: Reporter) -> Job:
    """The job without the old box's price, unless ``--set`` gave one. Raises UserError where a limit needs the new price."""
    if job.price_per_hour is None or any(each.partition("=")[0].strip() == "price_per_hour" for each in overrides):
        return job
    if job.cost_limit is not None:
        raise UserError(
            f"cost_limit {job.cost_limit:g} needs the price of the new box: {job.price_per_hour:g} an hour was that of {run.host}",
            meaning="Nothing was started.",
            hint=f"Repeat with --set price_per_hour=N: what {host} costs an hour. The limit then holds for the new run alone.",
        )
    report.note(
        f"price_per_hour {job.price_per_hour:g} was that of {run.host}: --set price_per_hour=N shows what the new run costs"
    )
    return replace(job, price_per_hour=None).at(job.folder, job.file, job.overrides)
