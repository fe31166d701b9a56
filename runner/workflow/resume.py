"""Going on from a checkpoint: a new run of the same job, whose outputs on the box start as links to the old one's."""

from __future__ import annotations

from typing import Any

from remote_payload.settings.training import RETIRED
from runner import store
from runner.domain import places
from runner.domain.errors import Interrupted, UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.jobfile import load
from runner.workflow import status as statuses
from runner.workflow.connect import connect_to_run
from runner.workflow.done import not_there
from runner.workflow.submission.mint import discard_if_never_tried, is_refusal, mint
from runner.workflow.submission.plan import make_plan
from runner.workflow.submissions import stand_of
from runner.workflow.submit import submit


def resume(run: Run, report: Reporter, *, checkpoint: str = "auto", overrides: tuple[str, ...] = ()) -> Run:
    """The new run, started. ``checkpoint`` is auto, or a name that ``gpurun checkpoints`` lists.

    Raises UserError while the old one lives, RunLost when the box does not know it.
    """
    job = job_of(run, overrides)
    if checkpoint == "auto" and any(each.partition("=")[0].strip() == "settings.resume" for each in overrides):
        checkpoint = job.settings.get("resume") or "auto"  # another way to name one, and as explicit
    plan = make_plan(job)
    with connect_to_run(run, report) as link:
        seen = statuses.query_box(link, run)
        if seen.status is not None and not seen.status.finished:
            raise UserError(
                f"{run.run_id} is not over ({seen.status.phase})",
                meaning="It goes on as it is.",
                hint=f"gpurun logs -f follows it; to go on from a checkpoint now: gpurun stop {run.run_id}, then repeat this.",
            )
        if seen.not_there:
            raise not_there(run)
        new = mint(
            job, run.host, volume=run.volume, parent=run.run_id, experiment=run.experiment, submission=run.submission
        )
        report.note(f"run {new.run_id}, going on from {run.run_id}")
        try:
            return submit(link, new, plan, report, resume={"run_id": run.run_id, "checkpoint": checkpoint})
        except KeyboardInterrupt:
            discard_if_never_tried([new])
            raise Interrupted(stand_of(new) if new.attempted else "") from None
        except BaseException as error:  # nothing could go on with the new record, and it would hide the old run
            if is_refusal(error):
                store.discard(new.run_id)
            discard_if_never_tried([new])
            raise


def job_of(run: Run, overrides: tuple[str, ...] = ()) -> Job:
    """The job of a recorded run, with overrides, checked again as a job file is. Raises JobFileError."""
    folder = run.job.folder
    if not folder.is_dir():
        raise UserError(
            f"{folder} is gone: the code and data of {run.run_id} came from there", meaning="Nothing was contacted."
        )
    file = places.run_folder(run.run_id) / "job.json"
    settings = _without_retired(run.job.settings)
    wire = run.job.wire()
    wire |= {"settings": settings, "code": {**wire["code"], "path": str(folder)}}
    store.write_json(file, {key: value for key, value in wire.items() if value not in (None, {}, [])})
    return load(file, overrides).at(folder, run.job.file)


def _without_retired(settings: dict[str, Any]) -> dict[str, Any]:
    """Recorded settings without those that a version of gpurun before this one filled in, and that exist no more."""
    kept = {name: value for name, value in settings.items() if name not in RETIRED}
    return {name: _without_retired(value) if isinstance(value, dict) else value for name, value in kept.items()}
