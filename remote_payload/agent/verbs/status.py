"""Verb ``status``: what the runs of this box are doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run.alive import Box
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.run.queue.health import Note
    from remote_payload.agent.wire.answers import GpuSetAside, Statuses


def status(request: Request) -> Statuses:
    """``{runs: [status], set_aside}`` of ``run_ids``, or of every run on the box, newest first, and then the GPUs that are set aside.

    Raises AgentError for what is no run id.
    """
    asked, box = request.fields(), Box()
    if "run_ids" in asked:
        named = [request.paths.run(run_id) for run_id in asked.run_ids("run_ids")]
        return {"runs": [status_of(run, box) for run in named], "set_aside": []}
    from remote_payload.agent.run.queue import health  # not loaded for the status of one run

    runs = [status_of(run, box) for run in runs_newest_first(request.paths)]
    return {"runs": runs, "set_aside": [_describe(note) for note in health.set_aside(request.paths).values()]}


def _describe(note: Note) -> GpuSetAside:
    return {"gpu": note.number, "runs": list(note.runs), "at": note.set_aside_at or 0.0, "evidence": note.evidence}
