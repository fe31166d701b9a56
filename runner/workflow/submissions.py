"""One command, one connection, any number of jobs: each goes down the line of ``submit.py`` in turn."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from runner.domain.errors import Interrupted
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport.link import load
from runner.workflow.connect import connect, install_python_if_missing, resolve_or_start_host, retry_on_link_loss
from runner.workflow.submission.beside import beside
from runner.workflow.submission.mint import discarded_if_never_tried, mint, reason_kept
from runner.workflow.submission.plan import make_plan, secrets_of
from runner.workflow.submit import submit


def submit_all(
    jobs: list[tuple[Job, str | None]],
    host: str,
    report: Reporter,
    *,
    volume: str | None = None,
    strict: bool = False,
    checksum: bool = False,
    kill_stale: bool = False,
    run_id: str | None = None,
) -> list[Run]:
    """Starts each job (with its experiment) as a run of its own, or goes on with ``run_id``. A link that breaks is reconnected.

    Raises UserError before anything is contacted, else HostError, TransferError or LaunchError; runs that started before stay.
    """
    box = resolve_or_start_host(host, volume)  # before anything is minted: a host that cannot be one leaves no record
    for job, _ in jobs:
        secrets_of(job)  # one that is not set here is said now
    together = secrets.token_hex(4)
    minted = [
        mint(job, host, volume=volume, run_id=run_id, experiment=experiment, submission=together)
        for job, experiment in jobs
    ]
    for run in minted:
        report.note(f"run {run.run_id}")
    # What is sent is worked out while the connection opens, and not before: loading what opens it is on the way of everything else.
    with said_what_was_started(minted), discarded_if_never_tried([] if run_id else minted), beside() as thread:
        thread.submit(load)
        plans = [thread.submit(make_plan, job, checksum=checksum) for job, _ in jobs]
        waiting = dict(zip((run.run_id for run in minted), plans, strict=True))

        def launch_those_left() -> None:
            with connect(box, report, strict=strict) as link:
                for run in minted:
                    if run.run_id in waiting:
                        submit(link, run, waiting[run.run_id].result(), report, kill_stale=kill_stale)
                        del waiting[run.run_id]

        with reason_kept(minted):
            install_python_if_missing(box, lambda: retry_on_link_loss(launch_those_left, report), report)
    return minted


@contextlib.contextmanager
def said_what_was_started(runs: list[Run]) -> Iterator[None]:
    """Ctrl-C with words (``cli/group.py`` prints them) about what runs by then and what does not."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("\n".join(stand_of(run) for run in runs)) from None


def stand_of(run: Run) -> str:
    """What an interrupted command says of a run that it was to start."""
    if run.status and run.status.finished:
        return f"{run.run_id} is over: gpurun status {run.run_id}"
    if run.launched:
        return f"{run.run_id} runs, and goes on: gpurun status {run.run_id}"
    if run.attempted:
        return (
            f"{run.run_id} may have been started: gpurun status {run.run_id} asks. Where it was not: {run.how_to_start}"
        )
    return f"{run.run_id} was not started. What was sent is kept; go on: {run.how_to_start}"
