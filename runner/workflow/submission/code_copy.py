"""The copy of a run's code that stays on this machine, for the day on which its box does not answer any more."""

from __future__ import annotations

from runner.domain.progress import Reporter
from runner.push import kept_code
from runner.workflow.submission.plan import Tree


def keep_copy(tree: Tree | None, report: Reporter) -> None:
    """Copies the code that is sent, unless there is a copy of it already. A run starts without one too: then it says why."""
    if tree is None or tree.fixed:
        return
    try:
        kept_code.keep(tree.selection, tree.digest)
    except kept_code.NotKept as error:
        report.note(f"no copy of the code is kept on this machine: {error}")
