"""Which code a run goes on with: what it had, of which this machine has a copy, or what the job's folder has now."""

from __future__ import annotations

from typing import Literal

from runner.domain.errors import GpurunError, UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.push import kept_code
from runner.push.problems import counted
from runner.push.selection import Selection, select_code
from runner.workflow.submission.plan import Tree, code_tree

Choice = Literal["run", "here"]


def code_of(run: Run, job: Job, wanted: Choice | None, moves: bool, report: Reporter) -> Tree | None:
    """The code that the run had, or None for what the job's folder has now. Where the two differ it says so, and how to get the other.

    By itself a run that moves to another box takes what it had; on its own box a resumed run takes what is here now, as a submission
    does. Raises UserError where the run's code is wanted, and the folder has changed and there is no copy.
    """
    if not job.pushes_code or not run.code or wanted == "here":
        return None
    kept = kept_code.find(run.code)
    if wanted is None and not moves:
        if kept and (differs := _differs(job, kept)):
            report.note(
                f"the code has changed since {run.run_id} was started ({differs}): the new run has what is here now"
            )
            report.note("--code run takes what it had")
        return None
    if kept is None:
        return _unchanged_here(run, job)
    if differs := _differs(job, kept):
        report.note(
            f"the code here has changed since {run.run_id} was started ({differs}): the new run has what that one had"
        )
        report.note("--code here takes what is here now")
    return Tree("", kept, run.code, fixed=True)


def _differs(job: Job, kept: Selection) -> str:
    """The files of which the job's folder has another version than the copy; empty for none."""
    try:
        paths = kept_code.same_content(select_code(job), kept)
    except (GpurunError, OSError):
        return "it cannot be read"
    return counted(paths, "file") if paths else ""


def _unchanged_here(run: Run, job: Job) -> Tree | None:
    if code_tree(job).digest == run.code:
        return None
    raise UserError(
        f"the code in {job.folder} may have changed since {run.run_id} was started, and this machine has no copy of what it had",
        meaning="Nothing was started.",
        hint="Add --code here to go on with what is here now.",
    )
