"""Verb ``holdings``: everything that would be lost with the box: every run, and every push that no run took yet.

A run may lie below another root than this agent's: below the home folder when a volume was named later, or the other way
round. A run whose folder was removed may still have processes; then only these show it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Dict, List, Optional, Set

from remote_payload.agent.box import locks, processes
from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import alive
from remote_payload.agent.run.alive import Box
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.paths import ROOT_NAME, RUN_ID, SAFE_PATH, BoxPaths, RunPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Holdings, ProcessLeft, PushHeld, RunHeld, UnreadRoot

ROOT = re.compile(r"/[A-Za-z0-9._/-]*/" + re.escape(ROOT_NAME) + r"(?=/)")
EMBEDDED = "/local-box/home/" + ROOT_NAME
MAX_NAMED = 20  # processes of one run, by name


def holdings(request: Request) -> Holdings:
    """``{runs: [{root, left, status}], pushes: [{root, name, run_id}], homeless: [{run_id, left}], unread: [{root, why}]}``.

    ``roots`` are more folders to look below. ``left`` are processes of the run, ``[{pid, command}]``; ``homeless`` are runs
    that live without a folder below any of the roots; ``run_id`` of a push is null where its name holds none; ``unread`` are
    the roots that cannot be listed: a volume that is not mounted, a folder of another user.
    """
    box = Box()
    folders = {run_id: path for run_id, path in _folders(box).items() if _is_here(path, request.paths.root)}
    roots = _roots(request, box, folders)
    found = [(paths, run) for paths in roots for run in runs_newest_first(paths)]
    with_folder = {run.run_id for _, run in found}
    return {
        "runs": [_run(paths, run, box) for paths, run in found],
        "pushes": [push for paths in roots for push in _pushes(paths) if push["run_id"] not in with_folder],
        "homeless": [
            {"run_id": run_id, "left": _processes(request.paths.run(run_id), box)}
            for run_id in sorted((set(folders) | _locked(roots)) - with_folder)
        ],
        "unread": [each for each in map(_unread, roots) if each is not None],
    }


def _unread(paths: BoxPaths) -> Optional[UnreadRoot]:
    """A root whose content cannot be listed, with the reason; None for one that can."""
    try:
        os.listdir(paths.root)
    except OSError as error:
        return {"root": paths.root, "why": error.strerror or str(error)}
    return None


def _folders(box: Box) -> Dict[str, str]:
    """The runs that have processes, and the folder of each, empty where the processes do not show it."""
    found = {}
    for run_id, pids in box.marked().items():
        if RUN_ID.fullmatch(run_id):
            found[run_id] = next(filter(None, (_folder_of(pid) for pid in pids)), "")
    return found


def _folder_of(pid: int) -> str:
    """The run's folder, by the process's environment, else by the log that it writes to."""
    try:
        with open("%s/%d/environ" % (processes.PROC, pid), "rb") as file:
            variables = file.read().decode("utf-8", "replace").split("\0")
        named = [each.split("=", 1)[1] for each in variables if each.startswith("GPURUN_RUN_DIR=")]
        writes_to = os.readlink("%s/%d/fd/1" % (processes.PROC, pid))
    except OSError:
        return ""
    return named[0] if named else writes_to if alive.LOG.search(writes_to) else ""


def _roots(request: Request, box: Box, folders: Dict[str, str]) -> List[BoxPaths]:
    """This agent's root, the one in the home folder, those that the laptop names, and those of processes of runs; each once."""
    candidates = request.fields().texts("roots")
    for text in (*folders.values(), *(processes.command(pid) for pid in box.everything if processes.is_agent(pid))):
        candidates = candidates + [root for root in ROOT.findall(text) if _is_here(root, request.paths.root)]
    places: Dict[str, BoxPaths] = {}
    for path in (
        request.paths.root,
        os.path.join(os.path.expanduser("~"), ROOT_NAME),
        *candidates,
    ):
        if path.startswith("/") and SAFE_PATH.fullmatch(path):  # gpurun uses no other paths
            places.setdefault(os.path.realpath(path), BoxPaths(path))
    return list(places.values())


def _is_here(path: str, root: str) -> bool:
    """Whether a folder belongs to this box: an embedded one (``--host local``) is a box of its own, though it shares a machine."""
    return path.startswith(root) if EMBEDDED in root else EMBEDDED not in path


def _run(paths: BoxPaths, run: RunPaths, box: Box) -> RunHeld:
    status = status_of(run, box)
    status["progress"] = {}  # large, and not needed here
    return {"root": paths.root, "left": _processes(run, box), "status": status}


def _processes(run: RunPaths, box: Box) -> List[ProcessLeft]:
    members = alive.of(run, box).members[:MAX_NAMED]
    return [{"pid": process.pid, "command": processes.command(process.pid)[:200]} for process in members]


def _pushes(paths: BoxPaths) -> List[PushHeld]:
    """The pushes under ``incoming/``, without empty folders."""
    pushes: List[PushHeld] = []
    for name in _names(paths.incoming("")):
        path = paths.incoming(name)
        if any(files for _, _, files in os.walk(path)) or os.path.isfile(path):
            run_id = RUN_ID.match(name)
            pushes.append({"root": paths.root, "name": name, "run_id": run_id.group() if run_id else None})
    return pushes


def _locked(roots: List[BoxPaths]) -> Set[str]:
    """Runs whose lock a process holds, though their folders may be removed."""
    named = {(paths, name) for paths in roots for name in _names(paths.locks) if RUN_ID.fullmatch(name)}
    return {name for paths, name in named if locks.is_held(locks.run_lock(paths.run(name)))}


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
