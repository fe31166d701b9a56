"""``gpurun resume`` on several boxes: a new run of the same job on those that are given, which may be others, more or fewer than before."""

from __future__ import annotations

from collections.abc import Sequence

from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.workflow.moving.code import Choice, code_of
from runner.workflow.moving.job import for_another_box
from runner.workflow.moving.outputs import outputs_to_send
from runner.workflow.resume import job_and_code
from runner.workflow.several_boxes.members import hosts_of
from runner.workflow.several_boxes.submit import submit_on_several
from runner.workflow.submission.resumption import Resumption
from runner.workflow.submit import Options


def resume_on_several(
    run: Run,
    hosts: Sequence[str],
    report: Reporter,
    *,
    checkpoint: str = "auto",
    overrides: tuple[str, ...] = (),
    code: Choice | None = None,
) -> Run:
    """The new run, started on all of ``hosts``. Every box gets the outputs of rank 0's: through this machine, what is home or newer there.

    Raises UserError while the old run lives or where nothing is known to go on from, and the errors of ``submit_on_several``.
    """
    job, code = job_and_code(run, (*overrides, f"resources.boxes={len(hosts)}"), code, report)
    moves = list(hosts) != hosts_of(run)
    if moves:
        job = for_another_box(job, run, " and ".join(hosts), overrides, report)
    taken = code_of(run, job, code, moves, report)
    with outputs_to_send(run, "", checkpoint, report) as outputs:  # its old box has it, whichever the new ones are
        resumption = Resumption(run, checkpoint, code=taken, outputs=outputs.tree(run))
        options = Options(volume=None if moves else run.volume)
        return submit_on_several(job, run.experiment, hosts, report, options, resumption)
