"""The records of a submission's runs: on disk before anything is contacted, and true however the submission ends."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence

from remote_payload.agent.wire.redact import redact
from runner import store
from runner.domain import places
from runner.domain.errors import (
    EnvironmentFailed,
    GpurunError,
    Interrupted,
    LaunchError,
    StartedElsewhere,
    StartUnconfirmed,
    UserError,
)
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.run import BOX, Refusal, Run, mint_id
from runner.workflow.submission.plan import secrets_of
from runner.workflow.submission.resumption import Resumption


def create_runs(
    jobs: Sequence[tuple[Job, str | None]],
    host: str,
    report: Reporter,
    *,
    volume: str | None = None,
    engine: str = BOX,
    run_id: str | None = None,
    resumption: Resumption | None = None,
) -> list[Run]:
    """A record on disk for each job (with its experiment); with ``run_id`` the record of an earlier try of the one job.

    Raises UserError for a secret that is not set on this machine or a run of another job, UnknownRun for an unknown ``run_id``.
    """
    for job, _ in jobs:
        secrets_of(job)
    if run_id is not None:
        runs = [_earlier_try(job, host, run_id) for job, _ in jobs]
    else:
        submission = resumption.earlier.submission if resumption else secrets.token_hex(4)
        parent = resumption.earlier.run_id if resumption else None
        runs = [_create(job, host, volume, engine, parent, experiment, submission) for job, experiment in jobs]
    if resumption is None:  # else it is noted once the earlier run is known to be over
        for run in runs:
            report.note(f"run {run.run_id}")
    return runs


def _create(
    job: Job,
    host: str,
    volume: str | None,
    engine: str,
    parent: str | None,
    experiment: str | None,
    submission: str | None,
) -> Run:
    run = Run(
        run_id=mint_id(job.name),
        job=job,
        host=host,
        created_at=time.time(),
        volume=volume,
        engine=engine,
        parent=parent,
        experiment=experiment,
        submission=submission,
    )
    store.create(run)
    return run


def _earlier_try(job: Job, host: str, run_id: str) -> Run:
    run = store.find(run_id)
    if run.job.name != job.name:
        raise UserError(f"{run.run_id} is a run of {run.job.name}, not of {job.name}", meaning="Nothing was contacted.")
    if not store.send_to(run, host):
        raise UserError(
            f"{run.run_id} {'is' if run.launched else 'may be'} on {run.host}, not on {host}: it is not started on two boxes",
            hint=f"Repeat with --host '{run.host}', or leave out --run.",
        )
    store.update(run, job=job)
    return run


@contextlib.contextmanager
def outcome_recorded(runs: Sequence[Run], *, discard_after: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Keeps the records true where the block ends with an error before all of ``runs`` were started.

    The first run that waited gets the error as the reason why it was not started, the others get that they were not tried.
    After an error of a kind in ``discard_after`` the records of runs that are on no box are removed instead.
    """
    try:
        yield
    except StartedElsewhere:  # the record says what the other gpurun does
        raise
    except BaseException as error:
        if isinstance(error, GpurunError):
            _note_reason(runs, error)
        if isinstance(error, discard_after):
            _discard_not_started(runs, error)
        raise


def _note_reason(runs: Sequence[Run], error: GpurunError) -> None:
    waiting = [run for run in runs if not run.launched]
    for run in waiting[:1]:
        if not run.attempted or is_refusal(error):  # else it may have started all the same
            why = Refusal(_cause(error), redact(error.message), redact(error.hint))
            store.update(run, not_started=why)
    for run in waiting[1:]:
        message = f"not tried: {waiting[0].run_id}, which was to start before it, did not start"
        store.update(run, not_started=Refusal("not tried", message))


def _discard_not_started(runs: Sequence[Run], error: BaseException) -> None:
    for run in runs:
        if not run.attempted and not run.launched:
            store.discard_untried(run.run_id)  # unless another gpurun has asked for the launch
        elif is_refusal(error) and not run.launched:
            store.discard(run.run_id)


def is_refusal(error: BaseException) -> bool:
    """Whether the box has answered a launch by saying that nothing was started."""
    return isinstance(error, LaunchError) and not isinstance(error, StartUnconfirmed)


def _cause(error: GpurunError) -> str:
    """What failed, in a word for ``gpurun list``."""
    if isinstance(error, EnvironmentFailed):
        return "environment"
    return {2: "job", 3: "box", 4: "push", 5: "launch"}.get(error.exit_code, "error")


@contextlib.contextmanager
def interruption_explained(runs: Sequence[Run]) -> Iterator[None]:
    """Ctrl-C ends the block with one line a run about what was started and what was not (``cli/errors.py`` prints them)."""
    try:
        yield
    except KeyboardInterrupt:
        kept = [run for run in runs if places.run_folder(run.run_id).exists()]
        raise Interrupted("\n".join(map(_after_interruption, kept))) from None


def _after_interruption(run: Run) -> str:
    if run.status and run.status.finished:
        return f"{run.run_id} is over: gpurun status {run.run_id}"
    if run.launched:
        return f"{run.run_id} runs, and goes on: gpurun status {run.run_id}"
    if run.attempted:
        return (
            f"{run.run_id} may have been started: gpurun status {run.run_id} asks. Where it was not: {run.how_to_start}"
        )
    return f"{run.run_id} was not started. What was sent is kept; go on: {run.how_to_start}"
