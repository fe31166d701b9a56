"""The outputs that a run takes along to another box: what is home of it, or what its old box has where that is newer and can be reached."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.domain import places
from runner.domain.errors import GpurunError, HostError, RunLost, UserError
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size
from runner.domain.run import Run
from runner.workflow.connect import connect_to_run
from runner.workflow.moving.from_box import newer_on_box
from runner.workflow.moving.home import AUTO, Outputs, outputs_at_home
from runner.workflow.observing.status import query_box
from runner.workflow.submission.resumption import fail_if_going

PASSING = "passing"  # below the run's folder: files on their way from one box to the other


@contextmanager
def outputs_to_send(run: Run, host: str, wanted: str, report: Reporter) -> Iterator[Outputs]:
    """What to push, from the checkpoint ``wanted`` (``auto``: the newest). What comes from the old box is on this machine for the block
    alone, but after an error, so that the next try goes on with it.

    Raises UserError where there is nothing to go on from, or the run goes on on its old box.
    """
    at_home, passing = outputs_at_home(run, wanted), places.run_folder(run.run_id) / PASSING
    outputs = _from_old_box(run, host, wanted, at_home, passing, report) or at_home
    if outputs is None:
        raise _nothing_to_go_on_from(run, wanted)
    report.note(_told(run, outputs, "which is home" if outputs is at_home else f"from {run.host}"))
    yield outputs
    shutil.rmtree(passing, ignore_errors=True)


def _from_old_box(
    run: Run, host: str, wanted: str, at_home: Outputs | None, passing: Path, report: Reporter
) -> Outputs | None:
    """What the run's old box has, where that is more than what is home; None where it has not, or does not answer."""
    if run.host == host:  # the box there does not have the run
        return None
    try:
        with connect_to_run(run, report) as link:
            if run.box and link.agent.identity and run.box != link.agent.identity:
                report.warn(f"the box at {run.host} is another one now")
                return None
            with contextlib.suppress(RunLost):
                seen = query_box(link, run)
                fail_if_going(run, seen)
                return None if seen.not_there else newer_on_box(link, run, wanted, at_home, passing, report)
    except HostError as error:
        report.warn(f"its old box: {error.message}; if the run still goes on there, it costs money there")
    except GpurunError as error:
        if isinstance(error, UserError):
            raise
        report.warn(f"its old box: {error.message}")
    return None


def _told(run: Run, outputs: Outputs, where: str) -> str:
    """What is taken along, and how many steps are trained again."""
    size = sum(entry.size for entry in outputs.tree(run).selection.files)
    if outputs.checkpoint is None:
        return f"it goes on with its outputs, {where.removeprefix('which is ')} ({format_size(size)})"
    known = (run.status.progress.get("step") if run.status else None) or {}
    last, step = known.get("step"), outputs.checkpoint.step
    again = f"; step {last} was seen last, {last - step} are trained again" if isinstance(last, int) and step else ""
    return f"it goes on from {outputs.checkpoint.name}, {where} ({format_size(size)} in all){again}"


def _nothing_to_go_on_from(run: Run, wanted: str) -> UserError:
    what = "no checkpoint that training can go on from" if wanted == AUTO else f"no complete checkpoint {wanted}"
    return UserError(
        f"{what} of {run.run_id} is on this machine, and its old box has none or does not answer",
        meaning="Nothing was started. A run can move with what was brought home of it while its box lived: gpurun keep, gpurun fetch.",
        hint=f"gpurun checkpoints {run.run_id} lists what there is; gpurun submit starts the job anew.",
    )
