"""What shows of a run's Slurm job: the heartbeat, then Slurm's list, and notes of what the list said before."""

from remote_payload.agent.box import slurm
from remote_payload.agent.box.slurm import GOING, LISTED, PENDING, SlurmError
from remote_payload.agent.run import causes
from remote_payload.agent.run.order import read_launch
from remote_payload.agent.run.slurm import files
from remote_payload.agent.run.slurm.table import Seen, Verdict, judge
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.redact import redact

LINE = 300  # characters
ABSENT, ENDED, TOLD, OVER = "absent", "ended", "told", "over"


def verdict_of(run: RunPaths) -> Verdict:
    """The state of a run that is a Slurm job and has no exit record. That it is over is noted, for the time when Slurm does not answer."""
    verdict = judge(look(run))
    if not verdict.alive:
        files.note(run, OVER)
    return verdict


def look(run: RunPaths) -> Seen:
    """The facts. The list is asked only where the heartbeat is not fresh."""
    began = files.read_owner(run) is not None
    told, over = files.is_noted(run, TOLD), files.is_noted(run, OVER)
    seen = Seen(files.read_number(run), files.heartbeat_age(run), began, told=told, over=over)
    if seen.heartbeat is not None and seen.heartbeat < files.FRESH:
        return seen
    launch = read_launch(run)
    seen = seen._replace(said=_last_line(run.supervisor_log))
    seen = seen._replace(requeue=launch is not None and bool((launch.slurm or {}).get("requeue")))
    try:
        return _listed(run, seen)
    except SlurmError as error:
        return seen._replace(error=str(error), ended=files.noted_text(run, ENDED, "state"))


def _listed(run: RunPaths, seen: Seen) -> Seen:
    """With what Slurm's list says, which is noted. Raises SlurmError."""
    number = seen.number if seen.number is not None else _find(run)
    job = LISTED.jobs().get(number) if number is not None else None
    seen = seen._replace(number=number, job=job)
    if job is None:
        return _absent(run, seen)
    files.forget(run, ABSENT)
    if job.state in PENDING + GOING:
        files.forget(run, ENDED)
        files.forget(run, OVER)
        return seen._replace(over=False)
    files.note(run, ENDED, state=job.state)
    return seen._replace(ended_for=files.noted_for(run, ENDED) or 0.0)


def _last_line(path: str) -> str:
    """Why a supervisor could not start: no Python on the node, a folder that the node does not have."""
    lines = [line.strip() for line in causes.tail(path).splitlines() if line.strip()]
    return redact(lines[-1])[:LINE] if lines else ""


def _find(run: RunPaths) -> "int | None":
    """The job by its name, for a launch that ended between ``sbatch`` and its note. Raises SlurmError."""
    number = slurm.find_by_name(run.run_id)
    if number is not None:
        files.write_number(run, number)
    return number


def _absent(run: RunPaths, seen: Seen) -> Seen:
    files.note(run, ABSENT)
    if not files.is_noted(run, ENDED) and seen.number is not None:
        state = slurm.recorded_end(seen.number)
        if state is not None:
            files.note(run, ENDED, state=state)
    return seen._replace(
        absent=files.noted_for(run, ABSENT) or 0.0,
        ended=files.noted_text(run, ENDED, "state"),
        ended_for=files.noted_for(run, ENDED) or 0.0,
    )
