"""A run's id and record, on disk before anything is contacted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from runner import store
from runner.domain.errors import UserError
from runner.domain.job import Job
from runner.domain.run import Run, mint_id


def mint(
    job: Job,
    host: str,
    *,
    volume: str | None = None,
    run_id: str | None = None,
    parent: str | None = None,
    experiment: str | None = None,
    submission: str | None = None,
) -> Run:
    """A new run's record, or the one that was minted before under ``run_id``. Raises UnknownRun, or UserError when it is another job's."""
    if run_id is not None:
        return _minted_before(job, host, run_id)
    run = Run(
        run_id=mint_id(job.name),
        job_name=job.name,
        job=job.wire(),
        job_file=str(job.file or ""),
        code_root=str(job.folder),
        host=host,
        created_at=time.time(),
        volume=volume,
        parent=parent,
        experiment=experiment,
        submission=submission,
    )
    store.create(run)
    return run


@contextlib.contextmanager
def discarded_if_never_tried(runs: list[Run]) -> Iterator[None]:
    """Takes back the records of runs that this machine's own side keeps from being sent: they name nothing that could be anywhere."""
    try:
        yield
    except UserError:
        discard_if_never_tried(runs)
        raise


def discard_if_never_tried(runs: list[Run]) -> None:
    """Takes back the records of those whose launch was never asked for."""
    for run in runs:
        if not run.attempted and not run.launched:
            store.discard(run.run_id)


def _minted_before(job: Job, host: str, run_id: str) -> Run:
    run = store.load(run_id)
    if run.job_name != job.name:
        raise UserError(f"{run_id} is a run of {run.job_name}, not of {job.name}", meaning="Nothing was contacted.")
    if run.host != host and run.launched:
        raise UserError(
            f"{run_id} is on {run.host}, not on {host}", hint=f"Repeat with --host '{run.host}', or leave out --run."
        )
    store.update(run, host=host, job=job.wire())
    return run
