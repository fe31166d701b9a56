"""A run's badge: a number made of the run's id, which each of its processes carries as its soft limit on file locks (RLIMIT_LOCKS).

A limit is inherited by every child. It outlives exec, ``setsid``, a double fork, an emptied environment, closed descriptors and
an overwritten command line: a process loses it only on purpose. Linux has ignored this limit since 2.4.25, so that it hinders
nobody, and no person or program sets numbers as large as these. The hard limit stays as it was: to put a badge on, to change or
to remove it needs no privilege. Where it cannot be put on (gVisor, a low hard limit) or read, the other signs of life remain.
"""

import hashlib
import os
import re
import resource
from typing import Optional

from remote_payload.agent.box import processes

LOCKS = 10  # RLIMIT_LOCKS, which Python's resource module does not name; the same on every architecture
BITS = 62  # a badge has this bit and none above it: far beyond any real limit, and still a positive number in C
LINE = re.compile(rb"^Max file locks +(\d+) ", re.MULTILINE)


def of(run_id: str) -> int:
    """The number that stands for a run."""
    return 1 << BITS | int.from_bytes(hashlib.sha256(run_id.encode("utf-8")).digest()[:8], "big") >> 2


def put_on(run_id: str) -> None:
    """Gives this process, and whatever it will start, the badge of a run."""
    _set(of(run_id))


def take_off() -> None:
    """Removes a badge from this process: a login server that a payload restarted gives its own to everybody who logs in."""
    if read(os.getpid()) is not None:
        _set(None)


def read(pid: int, proc: str = processes.PROC) -> Optional[int]:
    """The badge that a process carries, None without one or where it cannot be seen."""
    try:
        limit = resource.prlimit(pid, LOCKS)[0]
    except PermissionError:  # another user's; its limits can be read all the same, thirty times as slowly
        limit = _shown(pid, proc)
    except (OSError, ValueError):
        return None
    return limit if _is_badge(limit) else None


def _set(limit: Optional[int]) -> None:
    try:
        hard = resource.getrlimit(LOCKS)[1]
        resource.setrlimit(LOCKS, (hard if limit is None else limit, hard))
    except (OSError, ValueError):
        pass


def _shown(pid: int, proc: str) -> int:
    try:
        with open("%s/%d/limits" % (proc, pid), "rb") as file:
            found = LINE.search(file.read())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def _is_badge(limit: int) -> bool:
    return limit >> BITS == 1
