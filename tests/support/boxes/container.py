"""The box in a container, which a test can kill and start again."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import SSHD, Box, only_as_root


class Container:
    """The box's home in a container: process ids, /dev/shm and /proc of its own. Its first process is the sshd."""

    def __init__(self, box: Box, *prepare: str) -> None:
        box.end_sshd()
        self.box = box
        config = box.config.with_name("container_config")
        config.write_text(re.sub(r"^PidFile .*$", "PidFile none", box.config.read_text(), flags=re.MULTILINE))
        steps = ["mount -t tmpfs tmpfs /dev/shm", *prepare, f"exec {SSHD} -D -f {config}"]
        self.process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-ec", "\n".join(steps)],
            stdin=subprocess.DEVNULL,
        )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            with socket.create_connection(("127.0.0.1", self.box.port), timeout=1) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False

    def inside(self, command: str) -> str:
        """Runs a shell command among its processes; what it printed."""
        first = processes.descendants(processes.scan(), self.process.pid)
        argv = ["nsenter", "-t", str(min(first)), "-p", "-m", "sh", "-c", command]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def end(self) -> None:
        """As a provider stops a container: KILL to the first process, and the kernel ends all the others."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self._is_taken())

    def _is_taken(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.box.port)) == 0


@contextmanager
def container(box: Box, *prepare: str) -> Iterator[Container]:
    only_as_root()
    started = Container(box, *prepare)
    try:
        yield started
    finally:
        started.end()
