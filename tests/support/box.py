"""The embedded box with its own temper: another sshd configuration, another host key, no sshd at all, a way through a proxy."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_payload.agent.box import processes
from runner.local_box import LocalBox
from tests.support.agent import wait_until
from tests.support.cli import Gpurun

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


class Box:
    """The sshd behind a ``Gpurun``, on one port for as long as the test lasts."""

    def __init__(self, gpurun: Gpurun) -> None:
        self.gpurun = gpurun
        self.local = LocalBox(gpurun.home / "local-box")
        self.port = self.local.ensure().port
        self.config = self.local.folder / "sshd_config"
        self.home = self.local.home

    @property
    def root(self) -> Path:
        return self.gpurun.box_root

    def address(self, port: int | None = None, *options: str) -> str:
        """What is typed after ``--host`` to reach it, through the proxy that listens on ``port`` if one is given."""
        words = [
            "ssh",
            "-p",
            str(port or self.port),
            f"{getpass.getuser()}@127.0.0.1",
            "-i",
            str(self.local.key),
            *options,
        ]
        return " ".join(words)

    def sshd(self) -> int:
        """The listening sshd's pid."""
        return int((self.local.folder / "sshd.pid").read_text())

    def sessions(self) -> list[processes.Process]:
        """The sshd's own processes, one or two a connection, and what they started."""
        everything = processes.scan()
        return [everything[pid] for pid in processes.descendants(everything, self.sshd())]

    def end_sshd(self) -> None:
        """SIGKILL to the sshd and every session of it. Runs are not below it."""
        victims = [*self.sessions(), processes.read(self.sshd())]
        for victim in victims:
            if victim is not None:
                processes.send(victim, signal.SIGKILL)
        wait_until(lambda: all(processes.is_alive(each.pid, each.start) is None for each in victims if each))

    def start_sshd(self) -> None:
        subprocess.run(
            [SSHD, "-f", str(self.config), "-E", str(self.local.folder / "sshd.log")],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        wait_until(lambda: self.local.port() == self.port)

    def configure(self, *lines: str, **environment: str) -> None:
        """Restarts the sshd with these lines first (the first word of a setting wins) and these variables for its sessions."""
        self.end_sshd()
        text = self.config.read_text()
        if environment:
            more = " ".join(f'"{name}={value}"' for name, value in environment.items())
            text = re.sub(r"^SetEnv .*$", lambda found: f"{found.group()} {more}", text, flags=re.MULTILINE)
        self.config.write_text("\n".join([*lines, text]))
        self.start_sshd()

    def rekey(self, kind: str = "ed25519") -> None:
        """Another host key, as another machine at the same address has."""
        for name in ("host_key", "host_key.pub"):
            (self.local.folder / name).unlink()
        key = self.local.folder / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)], check=True, stdin=subprocess.DEVNULL)
        self.configure()


def only_as_root() -> None:
    """Skips where mounts, namespaces and other users' processes are out of reach."""
    if os.getuid() != 0:
        pytest.skip("needs root (CAP_SYS_ADMIN) for mounts and namespaces")


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own at ``folder``, with mount options such as ``size=300m``."""
    only_as_root()
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def box(gpurun: Gpurun) -> Iterator[Box]:
    """The box of the test's ``gpurun``, its sshd running."""
    started = Box(gpurun)
    yield started
    (started.home / "go").touch()  # what the payloads of these tests wait for
