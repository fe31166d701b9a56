"""Claim and start, in one request, at most once."""

from __future__ import annotations

import os
from typing import Any

from runner import store
from runner.domain.answers.status import Status
from runner.domain.errors import NotStarted, RunLost
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport.link import Link
from runner.workflow.follow import remember_status
from runner.workflow.status import query_box
from runner.workflow.submission.plan import Plan
from runner.workflow.submission.push import Pushed


def attach(link: Link, run: Run, plan: Plan, report: Reporter) -> bool:
    """Whether an earlier try of this submission has started the run; nothing need be pushed or checked then.

    Raises NotStarted for a claim that came to nothing, RunLost for a run that was there and is gone: neither starts a second time.
    """
    if not run.attempted and not run.launched:
        return False
    try:
        status = query_box(link, run).status
    except RunLost:
        return False
    if status is not None and status.outcome == "lost":
        kind = NotStarted if status.cause == "not_started" else RunLost
        raise kind(
            f"{run.run_id} was claimed on the box before, and is lost ({status.cause})",
            meaning="It is not started a second time under this id.",
            hint="Submit again without --run: what was pushed is not sent twice.",
        )
    report.note(f"{run.run_id} was there already: attached")
    _say_if_other_code(run.code, plan, report)
    return True


def _say_if_other_code(runs: str, plan: Plan, report: Reporter) -> None:
    """Whoever attaches may have edited the code since, or another gpurun has started the run from another folder."""
    if plan.code and runs and runs != plan.code.digest:
        report.warn("what it runs is not what lies here now: the code is another than it was when the run was started")


def launch(
    link: Link,
    run: Run,
    plan: Plan,
    interpreter: str,
    pushed: Pushed,
    token: str | None,
    resume: dict[str, Any] | None,
    report: Reporter,
) -> Status:
    """The run's status once the box has confirmed the start, or the status of what is there under this id already.

    Secrets go into this one request, on the agent's stdin, and nowhere else.
    """
    job = plan.job
    secrets = {**plan.secrets, **({"HF_TOKEN": token} if token else {})}
    store.update(run, attempted=True)  # from here on the run may be there, whatever is heard of it
    with report.stage("launch") as stage:
        answer = link.agent.launch(
            run.run_id,
            {
                "job": run.job.wire(),
                "interpreter": interpreter,
                "command": list(job.command) if job.command else None,
                "module": f"remote_payload.recipes.{job.recipe}" if job.recipe else None,
                "torchrun": bool(job.recipe) and _several(job.resources.gpus, job.resources.processes),
                "processes": job.resources.processes,
                "variables": _variables(job),
                "secrets": secrets,
                "gpus": job.resources.gpus,
                "queue": job.queue,
                "time_limit": job.time_limit,
                "outputs": list(job.outputs or ())
                if job.command
                else [],  # a recipe writes to $GPURUN_OUTPUTS; its manifest obeys them
                "resume": resume,
                **pushed.args,
            },
        )
        run.code = answer.code
        remember_status(run, answer.status)
        stage.update(note="it was there already: attached" if answer.attached else answer.status.phase)
    if answer.attached:
        _say_if_other_code(answer.code, plan, report)
    return answer.status


def _several(gpus: int | str, processes: int | None) -> bool:
    return gpus == "all" or (isinstance(gpus, int) and gpus > 1) or (processes or 1) > 1


def _variables(job: Job) -> dict[str, str]:
    """The job's own, and the hub that this machine uses, where it is not the public one."""
    mirror = {"HF_ENDPOINT": os.environ["HF_ENDPOINT"]} if os.environ.get("HF_ENDPOINT") else {}
    return {**mirror, **job.environment.variables}
