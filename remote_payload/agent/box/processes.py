"""Processes as /proc shows them. A pid means nothing without its start time: pids are recycled.

Every function takes ``proc``, the folder that stands for /proc, so that tests can put one together.
"""

import os
import re
import signal
from typing import Dict, Iterable, List, NamedTuple, Optional, Set

COOKIE = "GPURUN_RUN_ID"
AGENT_MARK = "remote_payload.agent"
GPU_DEVICE = re.compile(r"/dev/nvidia(\d+)")
PROC = "/proc"
ROUNDS = 5


class Process(NamedTuple):
    """One line of /proc/<pid>/stat. ``start`` is in clock ticks since the kernel booted; pid and start together name a process."""

    pid: int
    parent: int
    session: int
    state: str  # R, S, D, T (stopped), Z (ended, not yet collected) …
    start: int
    name: str
    group: int = 0


def read(pid: int, proc: str = PROC) -> Optional[Process]:
    """The process with this pid, None when there is none."""
    try:
        with open("%s/%d/stat" % (proc, pid), "rb") as file:
            text = file.read().decode("utf-8", "replace")
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        return Process(pid, int(fields[1]), int(fields[3]), fields[0], int(fields[19]), name, int(fields[2]))
    except (OSError, ValueError, IndexError):
        return None


def scan(proc: str = PROC) -> Dict[int, Process]:
    """All processes by pid, without those that have ended and wait to be collected.

    Reading takes a while: a process that was forked meanwhile (by a parent that ended before it was read) is read in another round.
    """
    found = {}
    seen: Set[str] = set()
    for _ in range(ROUNDS):
        fresh = [name for name in os.listdir(proc) if name.isdigit() and name not in seen]
        for name in fresh:
            process = read(int(name), proc)
            if process is not None and process.state not in "ZX":
                found[process.pid] = process
        if not fresh:
            break
        seen.update(fresh)
    return found


def is_alive(pid: object, start: object, proc: str = PROC) -> Optional[Process]:
    """The process that was recorded as (pid, start), None when it has ended, even if another process has its pid now."""
    process = read(pid, proc) if isinstance(pid, int) else None
    return process if process is not None and process.start == start and process.state not in "ZX" else None


def cookie(pid: int, proc: str = PROC) -> Optional[str]:
    """The run id that the process was started with, None without one or where we may not read it."""
    return variable(pid, COOKIE, proc)


def variable(pid: int, name: str, proc: str = PROC) -> Optional[str]:
    """A variable of the process's environment as it was at exec, None without it or where we may not read it."""
    try:
        with open("%s/%d/environ" % (proc, pid), "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return None
    prefix = name.encode("ascii") + b"="
    for each in variables:
        if each.startswith(prefix):
            return each[len(prefix) :].decode("utf-8", "replace")
    return None


def autogroup(pid: int, proc: str = PROC) -> Optional[str]:
    """The kernel's name for the session the process is in (``/autogroup-<n>``, made by ``setsid``, never given twice), None where
    the kernel has none.
    """
    try:
        with open("%s/%d/autogroup" % (proc, pid), encoding="ascii") as file:
            return (file.read(80).split() or [""])[0] or None
    except (OSError, ValueError):
        return None


def by_cookie(everything: Dict[int, Process], proc: str = PROC) -> Dict[str, List[Process]]:
    """Processes that carry a run's cookie, by run id."""
    found: Dict[str, List[Process]] = {}
    for process in everything.values():
        run_id = cookie(process.pid, proc)
        if run_id:
            found.setdefault(run_id, []).append(process)
    return found


def family(everything: Dict[int, Process], seeds: Iterable[int], spared: Set[int]) -> List[Process]:
    """``seeds``, all that descends from them, and all that shares a session with any of these; never one of ``spared``.

    A session is made by ``setsid`` and inherited: a session that has a process of the run has no other run's.
    """
    members: Set[int] = set(seeds) & set(everything) - spared
    while True:
        sessions = {everything[pid].session for pid in members} - {
            everything[pid].session for pid in spared & set(everything)
        }
        more = {
            process.pid
            for process in everything.values()
            if process.pid not in spared and (process.parent in members or process.session in sessions)
        }
        if more <= members:
            return [everything[pid] for pid in sorted(members)]
        members |= more


def descendants(everything: Dict[int, Process], ancestor: int) -> Set[int]:
    """Pids of everything below ``ancestor``, without itself."""
    found: Set[int] = set()
    fresh = {ancestor}
    while fresh:
        fresh = {process.pid for process in everything.values() if process.parent in fresh} - found
        found |= fresh
    return found


def self_and_ancestors(proc: str = PROC, pid: Optional[int] = None) -> Set[int]:
    """This process, its ancestors and PID 1: never to be signalled."""
    found = {1}
    current = os.getpid() if pid is None else pid
    while current > 0 and current not in found:
        found.add(current)
        process = read(current, proc)
        current = process.parent if process else 0
    return found


def send(process: Process, number: int, proc: str = PROC) -> bool:
    """Signals exactly this process, and no other that got its pid since. False when it has ended.

    Raises PermissionError for another user's.
    """
    try:
        handle = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1  # Python 3.9, Linux 5.3
    except ProcessLookupError:
        return False
    except OSError:  # old kernels, gVisor: microseconds lie between the check and the signal
        handle = -1
    try:
        if is_alive(process.pid, process.start, proc) is None:
            return False
        if handle >= 0:
            signal.pidfd_send_signal(handle, number)
        else:
            os.kill(process.pid, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        if handle >= 0:
            os.close(handle)


def command(pid: int, proc: str = PROC) -> str:
    """The process's command line, its words separated by spaces; empty when it has ended or is a kernel thread."""
    try:
        with open("%s/%d/cmdline" % (proc, pid), "rb") as file:
            return file.read(16384).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def is_agent(pid: int, proc: str = PROC) -> bool:
    """Whether the process is one of ours: an agent or a supervisor. Both ask NVML, so that they have GPUs open; both carry the
    package's name in their command line, however they were started.
    """
    return AGENT_MARK in command(pid, proc)


def kill_groups(members: Iterable[Process]) -> None:
    """KILL to the process groups of ``members``, each group at once: no child can be forked between two signals.

    A group lies in one session, and a session that has a process of a run has no other's, but for our own session.
    """
    ours = {process.session for process in map(read, self_and_ancestors()) if process is not None}
    for process in members:
        if process.group > 1 and process.session not in ours and is_alive(process.pid, process.start):
            try:
                os.killpg(process.group, signal.SIGKILL)
            except OSError:
                continue


def gpus_open(pid: int, proc: str = PROC) -> List[int]:
    """Numbers of the /dev/nvidia<n> that the process has open; none where we may not read them."""
    return sorted({int(number) for number in opened(pid, GPU_DEVICE, proc)})


def opened(pid: int, pattern: "re.Pattern[str]", proc: str = PROC) -> List[str]:
    """What the first group of ``pattern`` finds in the paths that the process has open; none where we may not read them."""
    found: List[str] = []
    try:
        descriptors = os.listdir("%s/%d/fd" % (proc, pid))
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            match = pattern.fullmatch(os.readlink("%s/%d/fd/%s" % (proc, pid, descriptor)))
        except OSError:
            continue
        if match:
            found.append(match.group(1))
    return found


def boot_id(proc: str = PROC) -> Optional[str]:
    """The kernel's id of this boot, None where the kernel does not show it."""
    try:
        with open(proc + "/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None


def first_start(proc: str = PROC) -> Optional[int]:
    """When PID 1 of this container started, in ticks since the kernel booted: later after the container was restarted."""
    process = read(1, proc)
    return process.start if process else None
