"""A machine without sshd, for agents alone: process ids and /dev/shm of its own, a disk that stays. A test kills it and starts it again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote_payload.agent.box import processes
from remote_payload.agent.wire.paths import BoxPaths
from tests.support.agent import FROM_SOURCE, Session, running_agent, wait_until
from tests.support.box import only_as_root

INIT = "import os, time\nwhile True:\n    try: os.wait()\n    except ChildProcessError: time.sleep(0.02)"


class Machine:
    """Root only. ``home`` is the home folder of its user, ``gpus`` the file that stands in for its GPUs."""

    def __init__(self, home: Path, gpus: Path) -> None:
        only_as_root()
        self.home, self.gpus = home, gpus
        self.paths = BoxPaths(str(home / ".gpurun-box"))
        self._first: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        inside = ["mount -t tmpfs tmpfs /dev/shm", f'exec {sys.executable} -S -c "$0"']
        words = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-ec"]
        self._first = subprocess.Popen([*words, "\n".join(inside), INIT])
        wait_until(lambda: INIT in processes.command(self._pid()))

    def kill(self) -> None:
        """Ends every process of it at once, without a signal that any could catch."""
        if self._first is not None:
            self._first.kill()
            self._first.wait()

    @contextmanager
    def agent(self) -> Iterator[Session]:
        entered = ["nsenter", "-t", str(self._pid()), "-p", "-m", *FROM_SOURCE]
        with running_agent(self.home, entered, GPURUN_FAKE_GPUS=str(self.gpus)) as session:
            yield session

    def _pid(self) -> int:
        """Of its first process, as this machine counts."""
        assert self._first is not None
        return min(processes.descendants(processes.scan(), self._first.pid), default=0)
