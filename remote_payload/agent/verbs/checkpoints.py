"""Verb ``checkpoints``: the checkpoints and models of a run: a recipe's by their own manifests, others by ``run/checkpoints``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List, Tuple

from remote_payload.agent.run.checkpoints.listing import list_checkpoints, list_written
from remote_payload.agent.run.checkpoints.own_manifests import complete_folders, is_inside
from remote_payload.agent.run.checkpoints.rule import is_foreign, read_rule
from remote_payload.agent.run.manifest import find
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Checkpoint, Checkpoints, Unfinished


def checkpoints(request: Request) -> Checkpoints:
    """``{checkpoints: [{name, path, step, metrics, size, resumable, at}], best, unfinished: [{path, step, size, at, why}], now}``,
    each the oldest first. Raises AgentError RunLost."""
    run = request.run()
    if not os.path.isdir(run.folder):
        raise AgentError("RunLost", "run %s has no folder on the box" % run.run_id)
    found = list_checkpoints(run.outputs)
    if is_foreign(run):
        complete, found["unfinished"] = list_foreign(run, is_running=status_of(run)["phase"] != "finished")
        found["checkpoints"] += complete
    return found


def list_foreign(run: RunPaths, is_running: bool) -> Tuple[List[Checkpoint], List[Unfinished]]:
    """The checkpoints, complete and not, of a program of the user's own, but for folders that are complete by their own manifest."""
    paths, _ = find(run)
    folders = complete_folders(run.outputs, paths)
    return list_written(
        run.outputs, (path for path in paths if not is_inside(path, folders)), read_rule(run), is_running
    )
