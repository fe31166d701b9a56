"""Claim and start of a run on the box, in one request, at most once."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass

from runner import store
from runner.domain.errors import NotStarted, PushDiffers, RunLost, StateError, UnknownRun
from runner.domain.job import Job, Slurm
from runner.domain.progress import Reporter
from runner.domain.requests import BoxesRequest, LaunchRequest, ResumeRequest
from runner.domain.run import SLURM, Run
from runner.domain.sweep import group_of
from runner.transport.link import Link
from runner.workflow.observing.follow import remember_status
from runner.workflow.observing.status import query_box
from runner.workflow.submission.plan import Plan, fail_if_job_changed
from runner.workflow.submission.push import TRIES, Pushed, push_code_anew
from runner.workflow.submission.resumption import Resumption


def attach(link: Link, run: Run, plan: Plan, report: Reporter) -> bool:
    """Whether an earlier try of this submission has started the run: then nothing need be pushed or checked.

    Raises NotStarted for a claim that started nothing, RunLost for a run that is gone: neither is started a second time.
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
    _warn_of_other_code(run.code, plan, report)
    return True


def launched_by_another(run: Run) -> bool:
    """Whether another gpurun on this machine has asked for this run's launch since this one looked; ``run`` knows it then."""
    if run.attempted or run.launched:
        return False
    record = store.load(run.run_id)
    run.attempted, run.launched, run.code = record.attempted, record.launched, record.code
    return run.attempted or run.launched


@dataclass(frozen=True)
class Start:
    """What a start needs besides the plan and what was pushed. ``watch``: it is looked whether the program ends at once.

    ``disk`` are the bytes that the run will write by its forecast, 0 where there is none.
    """

    interpreter: str
    token: str | None
    resumption: Resumption | None
    watch: bool
    disk: int = 0
    boxes: BoxesRequest | None = None  # where the run is on several boxes


def launch(
    link: Link, run: Run, plan: Plan, pushed: Pushed, start: Start, report: Reporter, *, push_again: bool = True
) -> Pushed:
    """Claims the run on the box and starts it, in one request, at most once; returns when the box has confirmed the start.

    Gives what was pushed in the end.
    The job file is read again right before. Code that arrived other than it was sent is pushed again, a few times, if ``push_again``.
    Raises LaunchError, StartedElsewhere among them, TransferFailed for a job file that was changed meanwhile, PushDiffers.
    """
    for tries_left in reversed(range(TRIES)):
        fail_if_job_changed(plan.job, run)
        try:
            _request_launch(link, run, plan, pushed, start, report)
            return pushed
        except PushDiffers:
            if not push_again:
                raise
            pushed = push_code_anew(link, plan.job, pushed, run.run_id, tries_left, report)
    raise AssertionError("the last try returns or raises")


def _request_launch(link: Link, run: Run, plan: Plan, pushed: Pushed, start: Start, report: Reporter) -> None:
    """Secrets go into this one request, on the agent's stdin, and nowhere else."""
    data = {each["path"]: each["key"] for each in pushed.data}
    store.note_attempt(run, data)  # from here on the run may be there, whether an answer arrives or not
    with report.stage("launch") as stage:
        answer = link.agent.launch(_request(run, plan, pushed, start))
        if start.boxes is None or start.boxes["rank"] == 0:  # its box is the one that a run on several is asked for
            run.code = answer.code
            remember_status(run, answer.status)
        stage.update(note="it was there already: attached" if answer.attached else answer.status.phase)
    if answer.attached:
        _warn_of_other_code(answer.code, plan, report)


def _request(run: Run, plan: Plan, pushed: Pushed, start: Start) -> LaunchRequest:
    job, resumption, token = plan.job, start.resumption, start.token
    resume: ResumeRequest | None = None
    if resumption and not resumption.anew:
        earlier, checkpoint = resumption.earlier.run_id, resumption.checkpoint
        resume = {"run_id": earlier, "checkpoint": checkpoint, "outputs": pushed.outputs}
    return {
        "run_id": run.run_id,
        "job": run.job.wire(),
        "interpreter": start.interpreter,
        "command": list(job.command) if job.command else None,
        "module": _module(job),
        "torchrun": bool(job.recipe) and _several(job.resources.gpus, job.resources.processes),
        "processes": job.resources.processes,
        "variables": _variables(job),
        "secrets": {**plan.secrets, **({"HF_TOKEN": token} if token else {})},
        "gpus": job.resources.gpus,
        "queue": job.queue,
        "vram": job.resources.vram or 0,
        "disk": max(job.resources.disk or 0, start.disk),
        "group": group_of(run) if job.keep_finished else None,
        "time_limit": job.time_limit,
        "cost_limit": job.seconds_paid_for,
        # A recipe writes to $GPURUN_OUTPUTS; its manifest obeys them.
        "outputs": list(job.outputs or ()) if job.command else [],
        "resume": resume,
        "code": pushed.code_request,
        "data": list(pushed.data),
        "payload": pushed.payload,
        "slurm": _for_slurm(job) if run.engine == SLURM else None,
        "boxes": start.boxes,
        "watch": start.watch,
    }


def _for_slurm(job: Job) -> dict[str, object]:
    options = {name: value for name, value in asdict(job.slurm or Slurm()).items() if value is not None}
    return {**options, "nodes": job.resources.boxes}


def _module(job: Job) -> str | None:
    """The module that runs a recipe; None for a command."""
    if not job.recipe:
        return None
    return f"remote_payload.recipes.{'own' if job.has_own_recipe else job.recipe}"


def confirm_start(link: Link, run: Run) -> None:
    """Writes into the run's record that the box has confirmed its start, and where it is."""
    store.update(
        run,
        attempted=True,
        launched=True,
        not_started=None,
        root=link.paths.root,
        volume=link.agent.volume,
        box=link.agent.identity or None,
        address=str(link.host),
        code=run.code,
    )
    if run.parent:
        with contextlib.suppress(UnknownRun, StateError):
            store.update(store.load(run.parent), went_on_as=run.run_id)


def _warn_of_other_code(code_of_run: str, plan: Plan, report: Reporter) -> None:
    """The code may have been edited since, or another gpurun has started the run from another folder."""
    if plan.code and code_of_run and code_of_run != plan.code.digest:
        report.warn("the run does not have the code that is here now: the code has changed since the run was started")


def _several(gpus: int | str, processes: int | None) -> bool:
    return gpus == "all" or (isinstance(gpus, int) and gpus > 1) or (processes or 1) > 1


def _variables(job: Job) -> dict[str, str]:
    """The job's own variables, and the hub that this machine uses where it is not the public one."""
    mirror = {"HF_ENDPOINT": os.environ["HF_ENDPOINT"]} if os.environ.get("HF_ENDPOINT") else {}
    return {**mirror, **job.environment.variables}
