"""A run's id and record, on disk before anything is contacted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

from remote_payload.agent.wire.redact import redact
from runner import store
from runner.domain.errors import EnvironmentFailed, GpurunError, LaunchError, StartUnconfirmed, UserError
from runner.domain.job import Job
from runner.domain.run import Refusal, Run, mint_id


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
        job=job,
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
    """Takes back the records of runs whose launch nobody has asked for; another gpurun may have asked for one of them."""
    for run in runs:
        if not run.attempted and not run.launched:
            store.discard_untried(run.run_id)


@contextlib.contextmanager
def reason_kept(runs: Iterable[Run]) -> Iterator[None]:
    """Notes in the record of the first of ``runs`` why it was not started, and in the others that they were not tried."""
    try:
        yield
    except GpurunError as error:
        waiting = [run for run in runs if not run.launched]
        for run in waiting[:1]:
            if not run.attempted or is_refusal(error):  # else it may have started all the same
                why = Refusal(_cause(error), redact(error.message), redact(error.hint))
                store.update(run, not_started=why)
        for run in waiting[1:]:
            message = f"not tried: {waiting[0].run_id}, which was to start before it, did not start"
            store.update(run, not_started=Refusal("not tried", message))
        raise


def is_refusal(error: BaseException) -> bool:
    """Whether a launch that was asked for ended with the box's word that nothing was started."""
    return isinstance(error, LaunchError) and not isinstance(error, StartUnconfirmed)


def _cause(error: GpurunError) -> str:
    """What failed, in a word for ``gpurun list``."""
    if isinstance(error, EnvironmentFailed):
        return "environment"
    return {2: "job", 3: "box", 4: "push", 5: "launch"}.get(error.exit_code, "error")


def _minted_before(job: Job, host: str, run_id: str) -> Run:
    run = store.find(run_id)
    if run.job.name != job.name:
        raise UserError(f"{run.run_id} is a run of {run.job.name}, not of {job.name}", meaning="Nothing was contacted.")
    if run.host != host and run.may_be_there:
        raise UserError(
            f"{run.run_id} {'is' if run.launched else 'may be'} on {run.host}, not on {host}: it is not started on two boxes",
            hint=f"Repeat with --host '{run.host}', or leave out --run.",
        )
    store.update(run, host=host, job=job)
    return run
