"""Boxes on a network of their own: each has a network namespace, a disk, process ids and an sshd, and cables join them.

The laptop reaches the sshd as one reaches a rented box, by a port that its provider forwards: the port is open outside of the box, and the
sshd of each connection runs inside. So what the boxes are to each other is only what the cables between them make possible.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agent import wait_until
from tests.support.box import SSHD, only_as_root
from tests.support.boxes.provider_box import DISK, SSHD_CONFIG

# Process 1 of a box: an sshd for each connection that the forwarded port accepts, and an end for every orphan.
DOOR = """
import os, select, socket, subprocess, sys
door, sshd, config = socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3]
while True:
    if select.select([door], [], [], 0.2)[0]:
        connection = door.accept()[0]
        subprocess.Popen([sshd, "-i", "-f", config], stdin=connection, stdout=connection, stderr=subprocess.DEVNULL)
        connection.close()
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError:
        pass
"""
START = (
    DISK
    + """\
ip link set lo up
exec chroot "$2/root" "$7" -I -S -c "$8" "$9" "$6" "$5"
"""
)
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LISTENING = "20000-32000"  # the ports that the agent listens on


def needs_networks() -> None:
    """Skips where no network namespaces can be made and joined, and says why."""
    only_as_root()
    if missing := [name for name in ("ip", "tc", "nsenter") if shutil.which(name, path=PATH) is None]:
        pytest.skip(f"no {', '.join(missing)} here; on Debian and Ubuntu .ci/setup installs them as root")
    tried = ["unshare", "--net", "ip", "link", "add", "name", "a", "type", "veth", "peer", "name", "b"]
    done = subprocess.run(tried, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine joins no network namespaces: {done.stderr.strip()}")


class NamespacedBox:
    """One box; root only. ``variables`` are those of its provider."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        needs_networks()
        self.folder, self.disk = folder, folder / "disk"
        folder.mkdir()
        for name in ("host_key", "login_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            door.listen(64)
            self.port = door.getsockname()[1]
            config = folder / "sshd_config"
            config.write_text(SSHD_CONFIG.format(port=self.port, folder=folder))
            namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--net"]
            disk = ["/", str(self.disk), "", "", str(config), SSHD]
            self._process = subprocess.Popen(
                [*namespaces, "sh", "-ec", START, "start", *disk, sys.executable, DOOR, str(door.fileno())],
                pass_fds=[door.fileno()],
                stdin=subprocess.DEVNULL,
                env={"PATH": PATH, "HOME": "/root", **variables},
            )
        wait_until(self._answers)
        self._cables: list[str] = []
        self._network = os.open(
            f"/proc/{self._process.pid}/ns/net", os.O_RDONLY
        )  # the cables stay when the box is dead

    @property
    def address(self) -> str:
        """What is typed after ``--host``."""
        return f"ssh -p {self.port} root@127.0.0.1 -i {self.folder}/login_key"

    def on_disk(self, path: str) -> Path:
        """A file that was written in the box."""
        return self.disk / "upper" / path.lstrip("/")

    def inside(self, *command: str) -> str:
        """Runs a command of this machine in the box's network; what it printed."""
        argv = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._network}", *command]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def cable(self, other: NamespacedBox, name: str, here: str, there: str) -> None:
        """A cable to another box; the interface is called ``name`` on both, with the addresses ``here`` and ``there``."""
        ends = [str(box._process.pid) for box in (self, other)]
        link = ["ip", "link", "add", "name", name, "netns", ends[0], "type", "veth", "peer", "name", name]
        subprocess.run([*link, "netns", ends[1]], check=True)
        for box, address in ((self, here), (other, there)):
            box.inside("ip", "address", "add", f"{address}/24", "dev", name)
            box.inside("ip", "link", "set", name, "up")
            box._cables.append(name)

    def slow_down(self, name: str, rate: str) -> None:
        """Nothing leaves by this interface faster than ``rate``, such as 100mbit."""
        shaper = ["tbf", "rate", rate, "burst", "64kb", "latency", "100ms"]
        self.inside("tc", "qdisc", "add", "dev", name, "root", *shaper)

    def refuse_strangers(self) -> None:
        """Nobody gets an answer from a program that listens here; programs here reach others: as behind a NAT."""
        self.inside("ip", "rule", "add", "ipproto", "tcp", "sport", LISTENING, "blackhole")

    def die(self, *, silently: bool) -> None:
        """Ends every process in it at once. Where its cables are cut before, no peer is told; else the kernel closes the connections."""
        for name in self._cables if silently else ():
            self.inside("ip", "link", "set", name, "down")
        self._process.kill()
        self._process.wait()

    def scrap(self) -> None:
        """Ends it, if it is not dead, and what is left of its network."""
        self._process.kill()
        self._process.wait()
        os.close(self._network)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the box ended"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False


Racked = Callable[..., list[NamespacedBox]]


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Racked]:
    """Makes boxes without any cable: ``a, b = rack(2)``; keywords are variables of their provider. All end with the test."""
    made: list[NamespacedBox] = []

    def make(count: int, **variables: str) -> list[NamespacedBox]:
        fresh = [NamespacedBox(tmp_path / f"box-{len(made) + each}", variables) for each in range(count)]
        made.extend(fresh)
        return fresh

    yield make
    for box in made:
        box.scrap()


@pytest.fixture
def pair(rack: Racked) -> list[NamespacedBox]:
    """Two boxes with a private network: eth1, 10.88.0.1 and 10.88.0.2. Each also has eth0, with the same address as the other's and
    nobody at the other end, as containers of two hosts have."""
    first, second = rack(2)
    for box in (first, second):
        box.inside("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "host0")
        box.inside("ip", "address", "add", "172.17.0.2/16", "dev", "eth0")
        for name in ("eth0", "host0"):
            box.inside("ip", "link", "set", name, "up")
    first.cable(second, "eth1", "10.88.0.1", "10.88.0.2")
    return [first, second]
