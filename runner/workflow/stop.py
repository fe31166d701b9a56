"""Ending a run, and proving that nothing of it is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.domain.errors import RunFailed
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.status import Status
from runner.domain.terminal import clean
from runner.workflow.connect import to_run
from runner.workflow.follow import remember_status

GRACE = 45  # seconds between TERM and KILL: enough to write a checkpoint


@dataclass(frozen=True)
class Stopped:
    status: Status
    device_holders: tuple[dict[str, Any], ...]  # who still has a GPU open; not ours


def stop(run: Run, report: Reporter, grace: float = GRACE) -> Stopped:
    """TERM, ``grace`` seconds, KILL, until two scans find nobody. Raises RunFailed naming what survives."""
    with to_run(run, report) as link, report.stage(f"stop {run.run_id}") as stage:

        def tell(value: dict[str, Any]) -> None:
            stage.update(note=str(value.get("line") or ""))

        answer = link.agent.call("stop", {"run_id": run.run_id, "grace": grace}, progress=tell)
    status = remember_status(run, answer["status"])
    survivors = [entry for entry in answer.get("survivors") or () if isinstance(entry, dict)]
    if survivors:
        who = ", ".join(f"{clean(entry.get('pid'))} ({clean(entry.get('name'), 60)})" for entry in survivors)
        raise RunFailed(
            f"{run.run_id} was killed, and these processes are still there: {who}",
            meaning="They wait for the kernel (a hung driver or disk), and may hold GPU memory.",
            hint="Restart the container or the box; nothing else ends them.",
        )
    return Stopped(status, tuple(entry for entry in answer.get("device_holders") or () if isinstance(entry, dict)))
