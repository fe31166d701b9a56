"""How much memory and processor time the container uses and may use, from its control group (version 1 or 2). None where it is unknown."""

import os
from typing import Dict, Optional, Tuple

MOUNT = "/sys/fs/cgroup"
UNLIMITED = 1 << 60  # version 1 writes a number near 2^63 instead of "max"


def memory(mount: str = MOUNT) -> Optional[Tuple[int, Optional[int]]]:
    """Bytes used (without file cache that can be dropped) and the limit, None without a limit."""
    used = _number(_file("memory", "memory.current", mount)) or _number(_file("memory", "memory.usage_in_bytes", mount))
    if used is None:
        return None
    counters = _counters(_file("memory", "memory.stat", mount))
    cache = counters.get("total_inactive_file", counters.get("inactive_file", 0))
    limit = _number(_file("memory", "memory.max", mount)) or _number(_file("memory", "memory.limit_in_bytes", mount))
    return max(used - cache, 0), limit if limit is not None and limit < UNLIMITED else None


def cpu_quota(mount: str = MOUNT) -> Optional[float]:
    """Processors' worth of time the container may use."""
    quota, _, period = (_read(_file("cpu", "cpu.max", mount)) or "").partition(" ")
    if not period:
        quota = _read(_file("cpu", "cpu.cfs_quota_us", mount)) or ""
        period = _read(_file("cpu", "cpu.cfs_period_us", mount)) or ""
    try:
        return float(quota) / float(period) if float(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None


def cpu_seconds(mount: str = MOUNT) -> Optional[float]:
    """Processor time the container has used so far."""
    microseconds = _counters(_file("cpu", "cpu.stat", mount)).get("usage_usec")
    if microseconds is not None:
        return microseconds / 1e6
    nanoseconds = _number(_file("cpuacct", "cpuacct.usage", mount))
    return nanoseconds / 1e9 if nanoseconds is not None else None


def oom_kills(mount: str = MOUNT) -> Optional[int]:
    """Processes of the container that the kernel ended for want of memory, ever."""
    for name in ("memory.events", "memory.oom_control"):
        count = _counters(_file("memory", name, mount)).get("oom_kill")
        if count is not None:
            return count
    return None


def _file(controller: str, name: str, mount: str) -> str:
    """Where a controller's file lies: version 2 in one tree, version 1 in one a controller.

    Inside a container the mount usually *is* the container's group; where it is the host's tree, our own group is
    the path that /proc/self/cgroup names.
    """
    own = {"": "/"}
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own.update((each, path) for each in controllers.split(","))
    places = [(mount, own[""]), (os.path.join(mount, controller), own.get(controller, "/"))]
    candidates = [os.path.join(tree, path.lstrip("/"), name) for tree, path in places]
    candidates += [os.path.join(tree, name) for tree, _ in places]
    return next((path for path in candidates if os.path.isfile(path)), candidates[-1])


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return None


def _number(path: str) -> Optional[int]:
    text = _read(path)
    return int(text) if text and text.isdigit() else None


def _counters(path: str) -> Dict[str, int]:
    pairs = (line.split() for line in (_read(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
