"""Ends every process of a run and no other: TERM, time to save, then KILL until no process of it is found.

``alive.find`` finds them: torchrun gives each worker a session of its own, and a double fork leaves the tree.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List

from remote_payload.agent.box import locks, processes
from remote_payload.agent.box.files import read_json, remove_quietly, write_whole
from remote_payload.agent.box.processes import Process
from remote_payload.agent.wire.paths import RunPaths, volatile_folder

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import ProcessShown

GRACE = 45.0  # seconds between TERM and KILL, unless the run needs more
LONGEST_GRACE = 3600.0
GRACE_FILE = "stop"  # in the run's volatile folder: the grace that ``stop`` was asked for, in seconds
KILL_LIMIT = 10.0  # seconds of KILL without effect, after which the survivors are named
PAUSE = 0.05
SHOWN = 200  # characters of a command line

Find = Callable[[], List[Process]]


def needed_grace(run: RunPaths) -> float:
    """Seconds between TERM and KILL for a run that is asked to end: GRACE, or longer where the payload says that it needs it.

    A recipe writes ``{"seconds": …}`` from the size of its checkpoints and the speed of the disk; a command may write it too.
    """
    told = (read_json(run.grace) or {}).get("seconds")
    if isinstance(told, bool) or not isinstance(told, (int, float)) or not told >= GRACE:
        return GRACE
    return float(min(told, LONGEST_GRACE))


def request_grace(run: RunPaths, seconds: float) -> None:
    """For ``stop``: how long the supervisor shall wait between TERM and KILL. Raises OSError."""
    write_whole(os.path.join(locks.make_volatile(run.run_id), GRACE_FILE), b"%f\n" % seconds)


def requested_grace(run: RunPaths) -> float:
    """What ``request_grace`` wrote, ``needed_grace`` where there is nothing usable."""
    try:
        with open(os.path.join(volatile_folder(run.run_id), GRACE_FILE), encoding="ascii") as file:
            return max(0.0, min(float(file.read(32)), LONGEST_GRACE))
    except (OSError, ValueError):
        return needed_grace(run)


def forget_grace(run: RunPaths) -> None:
    """Removes what ``request_grace`` wrote."""
    remove_quietly(os.path.join(volatile_folder(run.run_id), GRACE_FILE))


def signal_all(members: Iterable[Process], number: int) -> None:
    """Signals each; processes of another user (a setuid child) cannot be signalled, and are reported as survivors."""
    for process in members:
        try:
            processes.send(process, number)
        except OSError:
            continue


def terminate(find: Find, grace: float, limit: float) -> List[Process]:
    """TERM to all that ``find`` finds, up to ``grace`` seconds for them to end, then ``kill``. Gives the survivors."""
    members = find()
    signalled: Dict[int, Process] = {}
    deadline = time.monotonic() + grace
    while members and time.monotonic() < deadline:
        fresh = [process for process in members if signalled.get(process.pid) != process]
        signal_all(fresh, signal.SIGTERM)
        signal_all(fresh, signal.SIGCONT)  # a stopped process does not react to TERM
        signalled.update({process.pid: process for process in fresh})
        time.sleep(PAUSE)
        members = find()
    return kill(find, limit)


def kill(find: Find, limit: float) -> List[Process]:
    """KILL in a loop until two scans in a row find no process: a child may be forked while its parent is killed.

    Gives the processes that still exist after ``limit`` seconds.
    """
    deadline = time.monotonic() + limit
    empty = 0
    members: List[Process] = []
    while empty < 2 and time.monotonic() < deadline:
        members = find()
        empty = 0 if members else empty + 1
        processes.kill_groups(members)
        signal_all(members, signal.SIGKILL)
        time.sleep(PAUSE if members else PAUSE / 5)
    return members


def describe(members: Iterable[Process]) -> List[ProcessShown]:
    """The processes as an answer has them."""
    return [
        {"pid": process.pid, "command": processes.command(process.pid)[:SHOWN] or process.name, "state": process.state}
        for process in members
    ]
