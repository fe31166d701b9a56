"""The moment between the fork of a payload and its start: a signal to all processes of a run may come then, as Slurm's at a ``scancel``."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from remote_payload.agent.run import spawn
for number in (signal.SIGPIPE, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
child = spawn.fork_paused("r-20260102-142030-0001", ["true"], "/", {"PATH": "/usr/bin:/bin"}, sys.argv[1])
if sys.argv[2] != "none":
    os.kill(child.pid, getattr(signal, sys.argv[2]))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
why = child.execute()
status = os.waitpid(child.pid, 0)[1]
print(why, os.WTERMSIG(status) if os.WIFSIGNALED(status) else "exit %d" % os.WEXITSTATUS(status))
"""


@pytest.mark.parametrize(("sent", "ended"), [("SIGTERM", "15"), ("SIGKILL", "9"), ("none", "exit 0")])
def test_a_child_that_is_ended_before_its_start_has_ended_by_that_signal(tmp_path, sent: str, ended: str) -> None:
    (tmp_path / "log").touch()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log"), sent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout.split(None, 1) == ["None", ended + "\n"], done.stderr
