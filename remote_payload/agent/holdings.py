"""Verb ``holdings``: all that would go with the box, read off its own folders: every run, every push that no run took yet.

A run may lie below another root than this agent's: below the home folder when a volume was named later, or the other way
round. A run may also have no folder any more and still live; then only its lock or its processes show it.
"""

import os
from typing import Any, Dict, List, Set

from remote_payload.agent import alive, locks, processes
from remote_payload.agent.alive import Box
from remote_payload.agent.paths import ROOT_NAME, RUN_ID, SAFE_PATH, BoxPaths, RunPaths
from remote_payload.agent.request import Request
from remote_payload.agent.snapshot import runs_newest_first
from remote_payload.agent.state import status_of

MAX_NAMED = 20  # processes of one run, by name


def holdings(request: Request) -> Dict[str, Any]:
    """``{runs: [{root, left, status}], pushes: [{root, name, run_id}], homeless: [{run_id, left}]}``.

    ``roots`` are more folders to look below. ``left`` are processes of the run, ``[{pid, command}]``; ``homeless`` are runs
    that live without a folder below any of the roots; ``run_id`` of a push is null where its name holds none.
    """
    box = Box()
    roots = _roots(request)
    found = [(paths, run) for paths in roots for run in runs_newest_first(paths)]
    known = {run.run_id for _, run in found}
    return {
        "runs": [_run(paths, run, box) for paths, run in found],
        "pushes": [push for paths in roots for push in _pushes(paths) if push["run_id"] not in known],
        "homeless": [
            {"run_id": run_id, "left": _left(request.paths.run(run_id), box)}
            for run_id in sorted(_alive(roots, box) - known)
        ],
    }


def _roots(request: Request) -> List[BoxPaths]:
    """This agent's root, the one in the home folder, and those that the laptop remembers; each folder once."""
    more = request.args.get("roots")
    named = [path for path in more or () if isinstance(path, str) and path.startswith("/")]
    places: Dict[str, BoxPaths] = {}
    for path in (request.paths.root, os.path.join(os.path.expanduser("~"), ROOT_NAME), *named):
        if SAFE_PATH.fullmatch(path):  # below any other gpurun never worked
            places.setdefault(os.path.realpath(path), BoxPaths(path))
    return list(places.values())


def _run(paths: BoxPaths, run: RunPaths, box: Box) -> Dict[str, Any]:
    status = status_of(run, box)
    status["progress"] = {}  # large, and nobody asks here how far a run is
    return {"root": paths.root, "left": _left(run, box), "status": status}


def _left(run: RunPaths, box: Box) -> List[Dict[str, Any]]:
    members = alive.of(run, box).members[:MAX_NAMED]
    return [{"pid": process.pid, "command": processes.command(process.pid)[:200]} for process in members]


def _pushes(paths: BoxPaths) -> List[Dict[str, Any]]:
    """What waits under ``incoming/``; an empty folder is nothing."""
    pushes = []
    for name in _names(paths.incoming("")):
        path = paths.incoming(name)
        if any(files for _, _, files in os.walk(path)) or os.path.isfile(path):
            run_id = RUN_ID.match(name)
            pushes.append({"root": paths.root, "name": name, "run_id": run_id.group() if run_id else None})
    return pushes


def _alive(roots: List[BoxPaths], box: Box) -> Set[str]:
    """Runs of which somebody holds the lock, or processes show to which they belong, wherever their folders are."""
    named = {(paths, name) for paths in roots for name in _names(paths.locks) if RUN_ID.fullmatch(name)}
    locked = {name for paths, name in named if locks.is_held(locks.run_lock(paths.run(name)))}
    return locked | {run_id for run_id in box.marked() if RUN_ID.fullmatch(run_id)}


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
