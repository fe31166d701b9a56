"""Payloads that tell the test, not gpurun, that they live: each process writes its pid and start time to the test's own file.

What they give up of the signs by which gpurun knows them (environment, session, parent, output) is the test's choice.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from remote_payload.agent.box import processes

PROGRAM = r"""
import ctypes, os, signal, sys, time
truth, control, name, *how = sys.argv[1:]
def said(*words):
    descriptor = os.open(truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)
def me():
    fields = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
    return os.getpid(), int(fields[19]), int(fields[47]), int(fields[48])
def void():
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
def child(*ways):
    if os.fork() == 0:
        if "twice" in ways and os.fork():
            os._exit(0)
        become(ways)
def become(ways):
    if "session" in ways:
        os.setsid()
    if "silent" in ways:
        void()
    environment = BARE if "bare" in ways else dict(os.environ)
    rest = [way for way in ways if way not in ("session", "silent", "bare", "twice")]
    os.execve(sys.executable, [sys.executable, "-S", "-c", PROGRAM, truth, control, "child", *rest], environment)
BARE = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
PROGRAM = open("/proc/self/cmdline").read().split("\0")[3]
if name == "main" and "reexec" in how:
    how.remove("reexec")
    os.execve(sys.executable, [sys.executable, "-S", "-c", PROGRAM, truth, control, name, *how], BARE)
if "silent" in how:
    void()
pid, start, first, last = me()
if "overwrite" in how:
    libc = ctypes.CDLL(None)
    libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    libc.memset(first, 0, last - first)
if "stubborn" in how:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
said("start", name, pid, start, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
for way in how:
    if way.startswith("child:"):
        child(*way[6:].split(","))
while not os.path.exists(control):
    time.sleep(0.02)
if name == "main":
    code = int(open(control).read() or "0")
    said("exit", code)
    sys.exit(code)
time.sleep(300)
"""


@dataclass
class Truth:
    """What the processes of one run said of themselves, and what /proc says of these."""

    path: Path
    control: Path

    def command(self, *how: str) -> list[str]:
        """The argv of the payload. ``how``: ``reexec`` (with nothing in its environment but the GPU), ``overwrite``, ``silent``,
        ``stubborn``, ``child:…`` (``session``, ``silent``, ``bare``, ``stubborn``, and ``twice``: forked twice, so that it has no parent).
        """
        return [sys.executable, "-S", "-c", PROGRAM, str(self.path), str(self.control), "main", *how]

    def end_with(self, code: int) -> None:
        """Lets the main process exit."""
        temporary = self.control.with_suffix(".new")
        temporary.write_text(str(code))
        temporary.rename(self.control)

    def lines(self) -> list[list[str]]:
        text = self.path.read_text() if self.path.exists() else ""
        return [line.split() for line in text.split("\n")[:-1]]

    def started(self) -> list[tuple[str, int, int]]:
        """Name, pid and start time of every process that ever said that it began."""
        return [(words[1], int(words[2]), int(words[3])) for words in self.lines() if words[0] == "start"]

    def living(self) -> list[str]:
        """Names of those that live, by their own words and the kernel's."""
        return [name for name, pid, start in self.started() if processes.is_alive(pid, start) is not None]

    def exited(self) -> int | None:
        """With what the main process said that it exits."""
        return next((int(words[1]) for words in self.lines() if words[0] == "exit"), None)
