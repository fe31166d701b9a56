"""A rented container: process ids, /dev/shm and a disk of its own, perhaps a volume, and an sshd. Its provider can stop it and start it.

The kernel does what it does for a real one: mount and PID namespaces, an overlay as the container's disk (what is here is its image), a
bind mount as the volume, the provider's variables in the environment of process 1 and nowhere else.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agent import wait_until
from tests.support.box import SSHD, only_as_root

SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/login_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
MaxStartups 200
"""
# Makes the disk and changes into it. Its arguments: the image, the folder of the disk, the volume or "", where that is mounted.
DISK = """\
mkdir -p "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
mount -t tmpfs shm "$2/root/dev/shm"
if [ -n "$3" ]; then mkdir -p "$2/root$4"; mount --bind "$3" "$2/root$4"; fi
[ -e "$2/upper/begun" ] || rm -rf "$2/root/root/.gpurun-box"
touch "$2/root/begun"
mkdir -p "$2/root/run/sshd"
"""
# Two arguments more: the sshd's configuration, and the sshd.
START = (
    DISK
    + """\
exec chroot "$2/root" /bin/sh -c '"$1" -D -f "$2" & wait' start "$6" "$5"
"""
)


class ProviderBox:
    """One instance. ``variables`` are those of its provider; ``volume`` is where a volume is mounted in it, if it has one."""

    def __init__(self, folder: Path, variables: dict[str, str], volume: str = "") -> None:
        self.folder, self.mounted_at, self._variables = folder, volume, variables
        self.disk, self.volume = folder / "disk", folder / "volume"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        for each in (folder, self.volume):
            each.mkdir()
        for name in ("host_key", "login_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)

    def start(self) -> str:
        """Starts it, at another port each time; gives the address."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = self.folder / "sshd_config"
        config.write_text(SSHD_CONFIG.format(port=self.port, folder=self.folder))
        volume = str(self.volume) if self.mounted_at else ""
        namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount"]
        self._process = subprocess.Popen(
            [*namespaces, "sh", "-ec", START, "start", "/", str(self.disk), volume, self.mounted_at, str(config), SSHD],
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **self._variables},
        )
        wait_until(self._answers)
        return f"ssh -p {self.port} root@127.0.0.1 -i {self.folder}/login_key"

    def stop(self, *, keeps_disk: bool) -> None:
        """Ends every process in it. The volume stays; the disk only where the provider keeps it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            wait_until(lambda: not self._answers())
        if not keeps_disk and self.disk.exists():
            shutil.rmtree(self.disk)

    def on_disk(self, path: str) -> Path:
        """A file that was written to the container's disk."""
        return self.disk / "upper" / path.lstrip("/")

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, "the container ended"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False


Rent = Callable[..., ProviderBox]


@pytest.fixture
def rent(tmp_path: Path) -> Iterator[Rent]:
    """Rents boxes: ``rent(RUNPOD_POD_ID="a", volume="/workspace")``. All end with the test."""
    only_as_root()
    rented: list[ProviderBox] = []

    def take(volume: str = "", **variables: str) -> ProviderBox:
        rented.append(ProviderBox(tmp_path / f"rented-{len(rented)}", variables, volume))
        return rented[-1]

    yield take
    for box in rented:
        box.stop(keeps_disk=False)
