"""Verb ``status``: what the runs of this box are doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run.alive import Box
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Statuses


def status(request: Request) -> Statuses:
    """``{runs: [status]}`` of ``run_ids``, or of every run on the box, newest first. Raises AgentError for what is no run id."""
    asked = request.fields()
    named = [request.paths.run(run_id) for run_id in asked.run_ids("run_ids")]
    runs = named if "run_ids" in asked else runs_newest_first(request.paths)
    box = Box()
    return {"runs": [status_of(run, box) for run in runs]}
