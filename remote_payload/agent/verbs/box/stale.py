"""Verb ``stale``: processes that still use the GPUs. Those of a finished run of gpurun are ended, others are listed.

NVML reports pids of the host, which in a container mean nothing or another process: they are never used. A
candidate is a process of our own pid namespace that has /dev/nvidia<n> open. Memory in use on a GPU that no process we see
has open is only reported.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set

from remote_payload.agent.box import bounded, gpus, processes
from remote_payload.agent.box.processes import Process
from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import alive, ending, state
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.redact import redact
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import GpuMemory, GpuUser, Stale

GRACE = 10.0  # seconds between TERM and KILL
NOT_IDLE = 20  # a GPU is held when more than one part in so many of its memory is in use: drivers keep some
MINORS_LIMIT = 5.0
# Login servers, and notebooks with somebody's work in them: never ended, if any of the first words of the command matches.
PROTECTED = (
    ("sshd", re.compile(r"(^|/)(sshd|dropbear)\b")),
    ("Jupyter", re.compile(r"(^|/)jupyter[\w.-]*$|(^|/)ipykernel", re.IGNORECASE)),
)


# Programs of a workstation. Only the program's own name counts: a training job may have any of these names as an argument.
DESKTOP = (
    ("display server", r"Xorg(\.bin|\.wrap)?|X|Xwayland|Xephyr|Xnest|Xvfb|weston|mir|kmscon|plymouthd"),
    ("display manager", r"(gdm|sddm|lightdm|lxdm|xdm)[\w.-]*|slim|ly|ly-dm|greetd|entranced|nodm|.*-greeter"),
    (
        "desktop",
        r"(gnome|mutter|gjs|kwin|plasma|startplasma|ksmserver|kded|xfce4?|xfwm4|xfdesktop|cinnamon|nemo-desktop|muffin|mate|marco"
        r"|lxqt|lxsession|lxpanel|budgie|unity|compiz|deepin|dde|enlightenment|cosmic|openbox|fluxbox|icewm|awesome|bspwm|i3|dwm|xmonad"
        r"|sway|hyprland|wayfire|river|labwc|niri|gamescope|picom|compton|polybar|waybar|conky)([\d.:_-][\w.:-]*|shell|session|_wayland|_x11)?",
    ),
    (
        "remote desktop",
        r"Xvnc|Xtigervnc|Xorgxrdp|x11vnc|x0(tiger)?vnc(server)?|vnc(server|session)?[\w.-]*|wayvnc|krfb|xrdp[\w-]*|xpra[\w-]*"
        r"|nx(node|agent|server|d|player)[\w.-]*|chrome-remote-desktop[\w-]*|(sunshine|anydesk|rustdesk|teamviewer)[\w.-]*|dcv[\w-]*",
    ),
    (
        "part of the system",
        r"systemd[\w-]*|\(sd-pam\)|init|dbus-(daemon|broker)[\w-]*|pipewire[\w-]*|wireplumber|pulseaudio|dockerd|containerd[\w-]*"
        r"|nvidia-(persistenced|powerd|cuda-mps-[\w-]+|fabricmanager)|nv-(hostengine|fabricmanager)|dcgm[\w-]*|tmux[\w: -]*|screen",
    ),
)
SCREEN = re.compile(r"/dev/(dri/card\d+|fb\d+)")  # CUDA opens neither


def stale(request: Request) -> Stale:
    """``{ended, others, held, survivors}``: lists of processes ``{pid, user, age, command, memory, gpus, run_id, kept}``.

    ``age`` in seconds, ``memory`` resident bytes, ``gpus`` the <n> of /dev/nvidia<n>; ``kept`` says why a process is never
    ended. ``held`` is ``[{gpu, bytes}]``. ``gpus`` in the request, a list of such numbers, limits the search; ``kill`` also
    ends the others, except processes of runs that are not over.
    """
    asked = request.fields()
    numbers = set(asked.wholes("gpus")) if asked.is_a("gpus", list) else None
    found = _Candidates(request.paths, numbers)
    ended: List[GpuUser] = []
    survivors: List[Process] = []
    for run_id, members in found.left_over.items():
        find = functools.partial(alive.find, request.paths.run(run_id))
        survivors += ending.terminate(find, GRACE, ending.KILL_LIMIT)
        ended += members
    others = found.others
    if asked.flag("kill"):
        mine = [each for each in others if not each["kept"]]
        survivors += ending.terminate(_Tree([each["pid"] for each in mine]), GRACE, ending.KILL_LIMIT)
        ended += mine
        others = [each for each in others if each["kept"]]
    still_there = {process.pid for process in survivors}
    return {
        "ended": [each for each in ended if each["pid"] not in still_there],
        "others": others,
        "held": held_by_nobody(),
        "survivors": ending.describe(survivors),
    }


class _Candidates:
    """Processes with a GPU open: those of finished runs by run id, and the others."""

    def __init__(self, paths: BoxPaths, numbers: Optional[Set[int]]) -> None:
        box = alive.Box()
        runs = box.runs_by_pid(runs_newest_first(paths))
        spared = processes.self_and_ancestors()
        over: Dict[str, bool] = {}
        self.left_over: Dict[str, List[GpuUser]] = {}
        self.others: List[GpuUser] = []
        for process in box.everything.values():
            opened = processes.gpus_open(process.pid)
            if not opened or (numbers is not None and not numbers & set(opened)):
                continue
            run_id = runs.get(process.pid)
            about = describe(process, opened, run_id)
            if process.pid in spared or processes.is_agent(process.pid):
                about["kept"] = "gpurun itself, or what started it"
            if run_id and run_id not in over:
                over[run_id] = is_over(paths, run_id)
            if run_id and over[run_id] and not about["kept"]:
                self.left_over.setdefault(run_id, []).append(about)
            else:
                about["kept"] = about["kept"] or ("a run of gpurun that is not over" if run_id else None)
                self.others.append(about)


class _Tree:
    """Finds certain processes and all that descend from them, again at every call; not the other processes of their sessions.

    The session of somebody else's process is a person's terminal, with other programs in it.
    """

    def __init__(self, pids: List[int]) -> None:
        everything = processes.scan()
        self._seen: Dict[int, Process] = {pid: everything[pid] for pid in pids if pid in everything}

    def __call__(self) -> List[Process]:
        everything = processes.scan()
        spared = processes.self_and_ancestors()
        alive_now = [process for process in self._seen.values() if _same(everything.get(process.pid), process)]
        for process in alive_now:
            for pid in processes.descendants(everything, process.pid) - spared:
                if not protection(everything[pid]):
                    self._seen[pid] = everything[pid]
        return [process for process in self._seen.values() if _same(everything.get(process.pid), process)]


def _same(now: Optional[Process], then: Process) -> bool:
    return now is not None and now.start == then.start


def is_over(paths: BoxPaths, run_id: str) -> bool:
    """Whether this is a run below this root that has finished; a cookie may also name another run."""
    try:
        return os.path.isdir(paths.run(run_id).folder) and state.status_of(paths.run(run_id))["phase"] == "finished"
    except (ValueError, OSError):
        return False


def protection(process: Process) -> Optional[str]:
    """Why a process is never ended, None if it may be."""
    words = [process.name, *command_line(process.pid)[:4]]
    if process.pid == 1:
        return "PID 1"
    for why, pattern in PROTECTED:
        if any(pattern.search(word) for word in words):
            return why
    names = {os.path.basename(word.partition(" ")[0]) for word in words[:2]}
    for why, program in DESKTOP:
        if any(re.fullmatch(program, name, re.IGNORECASE) for name in names):
            return why
    return "it draws a screen" if processes.opened(process.pid, SCREEN) else None


def describe(process: Process, opened: List[int], run_id: Optional[str]) -> GpuUser:
    """A process in the answer; its command without tokens, truncated, printable."""
    command = " ".join(command_line(process.pid)) or process.name
    return {
        "pid": process.pid,
        "user": _attempt(lambda: pwd.getpwuid(os.stat("/proc/%d" % process.pid).st_uid).pw_name),
        "age": _attempt(lambda: int(_uptime() - process.start / os.sysconf("SC_CLK_TCK"))),
        "command": "".join(each if each.isprintable() else "?" for each in redact(command))[:200],
        "memory": _attempt(lambda: _resident(process.pid)),
        "gpus": opened,
        "run_id": run_id[:80] if run_id else None,
        "kept": protection(process),
    }


def command_line(pid: int) -> List[str]:
    """The words of a process's command line, [] where they cannot be read."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read(8192).decode("utf-8", "replace").strip("\0").split("\0")
    except OSError:
        return []


def held_by_nobody() -> List[GpuMemory]:
    """GPUs with memory in use that no process we see has open: ``[{gpu, bytes}]``."""
    seen = {number for pid in processes.scan() for number in processes.gpus_open(pid)}
    found = gpus.list_gpus() or []
    minors = _minors()
    return [
        {"gpu": gpu.number, "bytes": gpu.memory_used}
        for gpu in found
        if gpu.memory_used > gpu.memory_total // NOT_IDLE and minors.get(gpu.number, gpu.number) not in seen
    ]


def _minors() -> Dict[int, int]:
    """NVML's index → the <n> of /dev/nvidia<n>: they differ in a container that was given some of the GPUs."""

    def ask() -> Dict[int, int]:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return {index: pynvml.nvmlDeviceGetMinorNumber(handle) for index, handle in enumerate(handles)}

    return _attempt(lambda: bounded.Call(ask).result(MINORS_LIMIT)) or {}


def _uptime() -> float:
    with open("/proc/uptime", encoding="ascii") as file:
        return float(file.read().split()[0])


def _resident(pid: int) -> int:
    with open("/proc/%d/statm" % pid, encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _attempt(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception:  # it has ended meanwhile, has no name, or there is no driver
        return None
