"""Verb ``checkpoints``: the checkpoints and models of a run: a recipe's by their own manifests, others by ``run/checkpoints``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remote_payload.agent.run.checkpoints.listing import list_checkpoints
from remote_payload.agent.run.checkpoints.of_run import list_foreign
from remote_payload.agent.run.checkpoints.rule import is_foreign, read_rule
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Checkpoints


def checkpoints(request: Request) -> Checkpoints:
    """``{checkpoints: [{name, path, step, metrics, size, resumable, at}], best, unfinished: [{path, step, size, at, why}], now}``,
    each the oldest first. Raises AgentError RunLost."""
    run = request.run()
    if not os.path.isdir(run.folder):
        raise AgentError("RunLost", "run %s has no folder on the box" % run.run_id)
    found = list_checkpoints(run.outputs)
    if is_foreign(run):
        complete, found["unfinished"] = list_foreign(
            run, read_rule(run), is_running=status_of(run)["phase"] != "finished"
        )
        found["checkpoints"] += complete
    return found
