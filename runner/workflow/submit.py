"""The line: from a job file to a run that the box has confirmed.

    job → run id on disk → pinned host ∥ plan → probe ∥ hub access → push while the environment is built
        → stale processes → claim and launch → confirmed start

Cut off anywhere, the same submission goes on with ``gpurun submit JOB --run ID``: what was pushed is not sent again, and
the claim on the box (``mkdir runs/<id>``) makes a second launch impossible.
"""

from __future__ import annotations

from typing import Any

from runner import store
from runner.domain.answers.box import Box
from runner.domain.errors import PushDiffers, TransferError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport.link import Link
from runner.workflow.submission import access, checks, environment, launch, stale
from runner.workflow.submission.beside import beside
from runner.workflow.submission.plan import Plan, fail_if_job_changed
from runner.workflow.submission.push import TRIES, Pushed, push, push_code_anew


def submit(
    link: Link,
    run: Run,
    plan: Plan,
    report: Reporter,
    *,
    kill_stale: bool = False,
    resume: dict[str, Any] | None = None,
) -> Run:
    """Starts a minted run on a connected box, or attaches to it if it is there. Raises HostError, TransferError or LaunchError."""
    if launch.attach(link, run, plan, report):
        return _remember(run, link)
    for warning in plan.warnings:
        report.warn(warning)
    with beside() as thread:
        granted = thread.submit(access.require, plan.job, report)
        box = probe(link, plan, run.run_id, report)
        checks.require(checks.look_at(box, plan))
        token = granted.result()
    try:
        interpreter, pushed = _provision_and_push(link, plan, box, run, report)
    except TransferError:
        # Another gpurun with this run id was faster: its launch takes away what we were pushing.
        if launch.attach(link, store.load(run.run_id), plan, report):
            return _remember(run, link)
        raise
    stale.clear(link, plan, box, report, kill=kill_stale)
    for left in reversed(range(TRIES)):
        fail_if_job_changed(plan.job, run)
        try:
            launch.launch(link, run, plan, interpreter, pushed, token, resume, report)
            break
        except PushDiffers:
            pushed = push_code_anew(link, plan.job, pushed, run.run_id, left, report)
    return _remember(run, link)


def _remember(run: Run, link: Link) -> Run:
    store.update(
        run,
        attempted=True,
        launched=True,
        not_started=None,
        root=link.paths.root,
        address=str(link.host),
        code=run.code,
    )
    return run


def probe(link: Link, plan: Plan, run_id: str | None, report: Reporter) -> Box:
    """What the box is and has, in one request. Raises HostError when its answer cannot be true."""
    with report.stage("probe") as stage:
        box = link.agent.probe(plan.probe_args(run_id, link.host))
        stage.update(note=f"{len(box.gpus)} GPUs" if box.gpus else f"{box.cpus} CPUs, no GPU")
    return box


def _provision_and_push(link: Link, plan: Plan, box: Box, run: Run, report: Reporter) -> tuple[str, Pushed]:
    """Two things that wait for different ends of the link: the box installs while the laptop sends."""
    environment.install_tools(link, plan, box, report)
    with beside() as thread:
        building = thread.submit(environment.provision, link, plan, box, report)
        pushed = push(link, plan, box, run.run_id, report)
        return building.result(), pushed
