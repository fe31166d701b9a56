"""What a resumed run goes on from."""

from __future__ import annotations

from dataclasses import dataclass

from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport.link import Link
from runner.workflow.status import not_there, query_box


@dataclass(frozen=True)
class Resumption:
    """An earlier run on the same box, and the checkpoint to go on from: a name, or ``auto`` for the last good one."""

    earlier: Run
    checkpoint: str


def require_ended(link: Link, resumption: Resumption, new: Run, report: Reporter) -> None:
    """Raises UserError while the earlier run is alive, RunLost when the box does not know it."""
    earlier = resumption.earlier
    seen = query_box(link, earlier)
    if seen.status is not None and not seen.status.finished:
        raise UserError(
            f"{earlier.run_id} is not over ({seen.status.phase})",
            meaning="It goes on as it is.",
            hint=f"gpurun logs -f follows it; to go on from a checkpoint now: gpurun stop {earlier.run_id}, then repeat this.",
        )
    if seen.not_there:
        raise not_there(earlier)
    report.note(f"run {new.run_id}, going on from {earlier.run_id}")
