"""A run's badge: a number made of the run's id, which each of its processes carries as its soft limit on file locks (RLIMIT_LOCKS).

A limit is inherited by every child. It survives exec, ``setsid``, a double fork, an emptied environment, closed descriptors and
an overwritten command line: a process loses it only by setting that limit itself. Linux has ignored this limit since 2.4.25, so that it
restricts nothing, and no ordinary program sets numbers as large as these. The hard limit is not changed: to set, change or remove a badge
needs no privilege. Where it cannot be set (gVisor, a low hard limit) or read, ``alive`` finds the processes of a run by other signs.
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
    """The badge of a run."""
    return 1 << BITS | int.from_bytes(hashlib.sha256(run_id.encode("utf-8")).digest()[:8], "big") >> 2


def set_badge(run_id: str) -> None:
    """Gives this process the badge of a run; every process that it starts inherits it."""
    _set(of(run_id))


def remove_badge() -> None:
    """Removes a badge from this process: where a payload restarted the login server, everybody who logs in inherits its badge."""
    if read(os.getpid()) is not None:
        _set(None)


def read(pid: int, proc: str = processes.PROC) -> Optional[int]:
    """The badge of a process, None where it has none or we may not read it."""
    try:
        limit = resource.prlimit(pid, LOCKS)[0]
    except PermissionError:  # another user's; its limits can be read all the same, thirty times as slowly
        limit = _limit_in_proc(pid, proc)
    except (OSError, ValueError):
        return None
    return limit if _is_badge(limit) else None


def _set(limit: Optional[int]) -> None:
    try:
        hard = resource.getrlimit(LOCKS)[1]
        resource.setrlimit(LOCKS, (hard if limit is None else limit, hard))
    except (OSError, ValueError):
        pass


def _limit_in_proc(pid: int, proc: str) -> int:
    try:
        with open("%s/%d/limits" % (proc, pid), "rb") as file:
            found = LINE.search(file.read())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def _is_badge(limit: int) -> bool:
    return limit >> BITS == 1
