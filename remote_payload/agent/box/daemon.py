"""Makes this process a daemon that outlives the SSH session it was started from."""

import os
import signal
from typing import Iterable

IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
OOM_SCORE = "-500"  # needs root; a payload sets its own back to 0


def detach(log: str, blocked: Iterable[int]) -> int:
    """Leaves the session for good (double fork, ``setsid``), writes to ``log`` from now on, blocks the signals ``blocked``, and becomes
    the parent of every orphan below it (a child subreaper).

    Gives a descriptor of the old standard output, for the answer to the process that started this one.
    """
    answer = os.dup(1)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    guard(blocked)
    return answer


def guard(blocked: Iterable[int]) -> None:
    """Ignores what would end it with its session, blocks the signals ``blocked``, adopts the orphans below it, asks to be spared when
    memory runs out."""
    import ctypes  # a millisecond, which the verbs need not pay that only read this module's other function

    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    set_oom_score(OOM_SCORE)


def die_with_parent() -> None:
    """The kernel sends KILL to this process, and to what it executes, when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def set_oom_score(score: str) -> None:
    """Sets how readily the kernel ends this process when memory runs out (proc(5), oom_score_adj), where that is allowed."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(score)
    except OSError:
        pass
