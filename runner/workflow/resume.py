"""``gpurun resume``: a new run of the same job that goes on from a checkpoint, on the same box or on another one.

On its own box the new run's outputs start as the old run's. On another box they start as what is home of the old run, or what its old
box still has.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from remote_payload.settings.training import RETIRED
from runner import files
from runner.domain import places
from runner.domain.errors import UserError
from runner.domain.job import Job, Settings
from runner.domain.progress import Reporter
from runner.domain.run import BOX, Run
from runner.jobfile import load
from runner.push import kept_code
from runner.workflow.hosts import follow_if_there
from runner.workflow.moving.code import Choice, code_of
from runner.workflow.moving.job import for_another_box
from runner.workflow.moving.outputs import outputs_to_send
from runner.workflow.submission.resumption import Resumption
from runner.workflow.submit import Options, submit


def resume(
    run: Run,
    report: Reporter,
    *,
    checkpoint: str = "auto",
    overrides: tuple[str, ...] = (),
    host: str | None = None,
    code: Choice | None = None,
    engine: str = BOX,
) -> Run:
    """The new run, started. ``checkpoint`` is auto, or a name that ``gpurun checkpoints`` lists.

    At ``host`` the run is looked for first: where its box has another address now, it goes on there as on its own box. Otherwise it
    moves to that box, to be started by ``engine``. ``code``: what it had (``run``) or what is in the job's folder now (``here``).
    Raises UserError while the old one lives, RunLost when the box does not know it, and the errors of ``submit``.
    """
    job, code = job_and_code(run, overrides, code, report)
    if checkpoint == "auto" and any(each.partition("=")[0].strip() == "settings.resume" for each in overrides):
        checkpoint = job.settings.get("resume") or "auto"  # another way to name one, and as explicit
    if host is not None and not follow_if_there(run, host, report):
        return _move(run, job, host, report, checkpoint, overrides, code, engine)
    if host is not None:
        report.note(f"{run.run_id} is on {host}: it goes on there")
    options = Options(volume=run.volume, engine=run.engine)
    resumption = Resumption(run, checkpoint, code=code_of(run, job, code, False, report))
    return submit([(job, run.experiment)], run.host, report, options, resumption)[0]


def _move(
    run: Run,
    job: Job,
    host: str,
    report: Reporter,
    checkpoint: str,
    overrides: tuple[str, ...],
    code: Choice | None,
    engine: str,
) -> Run:
    report.note(f"{run.run_id} is not on {host}: it moves there")
    job = for_another_box(job, run, host, overrides, report)
    taken = code_of(run, job, code, True, report)
    with outputs_to_send(run, host, checkpoint, report) as outputs:
        resumption = Resumption(run, checkpoint, code=taken, outputs=outputs.tree(run))
        return submit([(job, run.experiment)], host, report, Options(engine=engine), resumption)[0]


def job_and_code(
    run: Run, overrides: tuple[str, ...], code: Choice | None, report: Reporter
) -> tuple[Job, Choice | None]:
    """The job, checked against its folder; where the folder does not have what the job names any more, against the copy of the run's
    code, which is taken then. Raises JobFileError, UserError.
    """
    try:
        return job_of(run, overrides), code
    except UserError as error:
        kept = kept_code.find(run.code) if run.job.command and code != "here" else None
        if kept is None:
            raise
        try:
            job = job_of(run, overrides, kept.root)
        except UserError:
            raise error from None
    report.note(f"{run.job.folder} has not what the job names any more: the new run has the code that {run.run_id} had")
    return job, "run"


def job_of(run: Run, overrides: tuple[str, ...] = (), code: Path | None = None) -> Job:
    """The job of a recorded run, with overrides, checked again as a job file is: against its folder, or against a copy of its code.

    Raises JobFileError.
    """
    folder = code or run.job.folder
    if not folder.is_dir():
        raise UserError(
            f"{folder} is gone: the code and data of {run.run_id} came from there", meaning="Nothing was contacted."
        )
    file = places.run_folder(run.run_id) / "job.json"
    settings = _without_retired(run.job.settings)
    wire = run.job.wire()
    wire |= {"settings": settings, "code": {**wire["code"], "path": str(folder)}}
    if code:
        sources = {**run.job.data_places, **run.job.run_outputs}
        wire["data"] = [{"path": str(source), "as": name} for name, source in sources.items()]
    files.write_json(file, {key: value for key, value in wire.items() if value not in (None, {}, [])})
    job = load(file, overrides)
    return replace(job, data=run.job.data if code else job.data).at(run.job.folder, run.job.file)


def _without_retired(settings: Settings) -> Settings:
    """Recorded settings without those that a version of gpurun before this one filled in, and that exist no more."""
    kept = {name: value for name, value in settings.items() if name not in RETIRED}
    return {name: _without_retired(value) if isinstance(value, dict) else value for name, value in kept.items()}
