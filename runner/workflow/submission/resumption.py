"""What a resumed run goes on from: a run on the same box, or what was brought home of one on another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.push.selection import Selection
from runner.transport.link import Link
from runner.workflow.observing.status import Seen, not_there, query_box
from runner.workflow.submission.plan import Plan, Tree

VARIABLE = "GPURUN_RESUME"  # what tells a program that it goes on; docs/resume.md
SOURCES = frozenset(
    (".py", ".sh", ".bash", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".jl", ".r", ".lua", ".pl", "")
)
LARGEST_SOURCE = 1 << 20  # bytes


@dataclass(frozen=True)
class Resumption:
    """An earlier run, and the checkpoint to go on from: a name, or ``auto`` for the last good one.

    ``outputs`` are what was brought home of it where it goes on on another box; otherwise the box has them. ``code`` is sent instead
    of what the job's folder has now. ``anew``: nothing of the earlier run is there to go on from, so the new one begins at its first step.
    """

    earlier: Run
    checkpoint: str
    code: Tree | None = None
    outputs: Tree | None = None
    anew: bool = False

    @property
    def moves(self) -> bool:
        """Whether the new run is on another box than the earlier one."""
        return self.outputs is not None or self.anew


def require_resumable(link: Link, resumption: Resumption, plan: Plan, new: Run, report: Reporter) -> None:
    """Raises UserError while the earlier run is alive, RunLost when the box does not know it. Warns of code that does not resume."""
    earlier = resumption.earlier
    if not resumption.moves:
        _require_over(link, earlier)
    if resumption.anew:
        return report.note(f"run {new.run_id}, in the place of {earlier.run_id}")
    report.note(f"run {new.run_id}, going on from {earlier.run_id}")
    if other := [tree.name for tree in plan.data if earlier.data.get(tree.name, tree.key) != tree.key]:
        report.warn(
            f"{', '.join(other)} changed here after {earlier.run_id} was started: the new run gets what is here now"
        )
    if not reads_variable(plan):
        report.warn(
            f"no file of the code names {VARIABLE}: unless the program looks for its checkpoints by itself, it begins at its first step "
            "again, over copies of the old outputs (docs/resume.md has two lines for the Trainer, Lightning and nanoGPT)"
        )


def _require_over(link: Link, earlier: Run) -> None:
    seen = query_box(link, earlier)
    fail_if_going(earlier, seen)
    if seen.not_there:
        raise not_there(earlier)


def fail_if_going(earlier: Run, seen: Seen) -> None:
    """Raises UserError for a run that is not over: a second one beside it would train the same."""
    if seen.status is not None and not seen.status.finished:
        raise UserError(
            f"{earlier.run_id} is not over ({seen.status.phase})",
            meaning="It goes on as it is.",
            hint=f"gpurun logs -f follows it; to go on from a checkpoint now: gpurun stop {earlier.run_id}, then repeat this.",
        )


def reads_variable(plan: Plan) -> bool:
    """Whether the program can know that it is resumed: a recipe does, a command whose words or sources name the variable."""
    if plan.code is None or plan.job.has_own_recipe:
        return True
    return any(VARIABLE in word for word in plan.job.command or ()) or _named_in(plan.code.selection)


def _named_in(selection: Selection) -> bool:
    for entry in selection.files:
        if PurePosixPath(entry.path).suffix.lower() not in SOURCES or not 0 < entry.size <= LARGEST_SOURCE:
            continue
        try:
            if VARIABLE.encode() in (selection.root / entry.path).read_bytes():
                return True
        except OSError:  # gone meanwhile; the push tells of it
            continue
    return False
