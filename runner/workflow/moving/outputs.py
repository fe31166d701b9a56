"""The outputs that a run takes along to another box: what is home of it, or what its old box has where that is newer and can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size
from runner.domain.run import Run
from runner.workflow.moving.home import AUTO, Outputs, outputs_at_home


@contextmanager
def outputs_to_send(run: Run, host: str, wanted: str, report: Reporter) -> Iterator[Outputs]:
    """What to push, from the checkpoint ``wanted`` (``auto``: the newest). Raises UserError where there is nothing to go on from."""
    outputs = outputs_at_home(run, wanted)
    if outputs is None:
        raise _nothing_to_go_on_from(run, wanted)
    report.note(_told(run, outputs))
    yield outputs


def _told(run: Run, outputs: Outputs) -> str:
    """What is taken along, and how many steps are trained again."""
    size = sum(entry.size for entry in outputs.tree(run).selection.files)
    if outputs.checkpoint is None:
        return f"it goes on from what is home of it ({format_size(size)})"
    known = (run.status.progress.get("step") if run.status else None) or {}
    last, step = known.get("step"), outputs.checkpoint.step
    again = f"; step {last} was seen last, {last - step} are trained again" if isinstance(last, int) and step else ""
    return f"it goes on from {outputs.checkpoint.name}, which is home ({format_size(size)} in all){again}"


def _nothing_to_go_on_from(run: Run, wanted: str) -> UserError:
    what = "no checkpoint that training can go on from" if wanted == AUTO else f"no complete checkpoint {wanted}"
    return UserError(
        f"{what} of {run.run_id} is on this machine",
        meaning="Nothing was started. A run can move only with what was brought home of it while its box lived: gpurun keep, gpurun fetch.",
        hint=f"gpurun checkpoints {run.run_id} lists what there is; gpurun submit starts the job anew.",
    )
