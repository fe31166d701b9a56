"""The checkpoints of one run of a program of the user's own, and which of them a resumed run goes on from."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Iterable, List, Tuple

from remote_payload.agent.run.checkpoints.listing import list_written
from remote_payload.agent.run.checkpoints.own_manifests import complete_folders, is_inside
from remote_payload.agent.run.checkpoints.rule import Rule
from remote_payload.agent.run.manifest import find
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import RunPaths

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Checkpoint, Unfinished

AUTO = "auto"
SHOWN = 10


def list_foreign(run: RunPaths, rule: Rule, is_running: bool) -> Tuple[List[Checkpoint], List[Unfinished]]:
    """The checkpoints, complete and not, each the oldest first, without folders that are complete by their own manifest."""
    paths, _ = find(run)
    folders = complete_folders(run.outputs, paths)
    return list_written(run.outputs, (path for path in paths if not is_inside(path, folders)), rule, is_running)


def choose(run: RunPaths, rule: Rule, wanted: str, names: Iterable[str]) -> str:
    """What ``GPURUN_RESUME`` says to a run whose outputs are those of the run before: the path of a checkpoint in the working directory,
    in which ``names`` are links to the outputs. ``auto`` where none is known that training can go on from.

    ``wanted`` is ``auto`` for the newest one (of those that the job's rule names, if there are any), or a checkpoint's path or last name,
    or any path there. Raises AgentError for one that is not there.
    """
    complete, _ = list_foreign(run, rule, is_running=False)
    able = [each["path"] for each in complete if each["resumable"]]
    if wanted == AUTO:
        newest = ([path for path in able if rule.matches(path)] or able)[-1:]
        return _as_seen(run, newest[0], names) if newest else AUTO
    if wanted.startswith("/"):  # as an earlier resume gave it
        wanted = wanted.partition("/outputs/")[2]
    alike = [path for path in able if wanted in (path, posixpath.basename(path))]
    if len(alike) == 1 or wanted in alike:
        return _as_seen(run, wanted if wanted in alike else alike[0], names)
    if not alike and _is_there(run, wanted):
        return _as_seen(run, wanted, names)
    known = ", ".join(able[-SHOWN:]) or "none that is complete"
    message = "there is no checkpoint %s to go on from" if not alike else "%s could be several checkpoints"
    raise AgentError("LaunchError", message % wanted, "These can be resumed: %s" % known)


def _is_there(run: RunPaths, path: str) -> bool:
    inside = path and not path.startswith("/") and ".." not in path.split("/")
    return bool(inside) and os.path.lexists(os.path.join(run.outputs, path))


def _as_seen(run: RunPaths, path: str, names: Iterable[str]) -> str:
    """The path as the program finds it: what lies under no name of the job's outputs was written by its whole path."""
    linked = any(path == name or path.startswith(name + "/") for name in names)
    return path if linked else posixpath.join(run.outputs, path)
