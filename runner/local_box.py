"""The embedded box, ``--host local``: a private sshd on 127.0.0.1 with its own keys, port and home folder.

It uses real SSH, real rsync and real processes, on this machine. It needs no root: the user who runs gpurun logs in under their own name.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from runner.domain import places
from runner.domain.errors import BoxNotReady
from runner.domain.host import HOME, LOCAL, Host
from runner.files import file_lock

# Variables that a run may need to reach package registries from this machine. Index URLs may hold a password and are not among them.
_PASSED_ON = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT")

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey "{folder}/host_key"
PidFile "{folder}/sshd.pid"
AuthorizedKeysFile "{folder}/authorized_keys"
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
AllowUsers {user}
AllowAgentForwarding no
AllowTcpForwarding no
X11Forwarding no
PermitUserRC no
PrintMotd no
MaxStartups 200
SetEnv {environment}
"""


class LocalBox:
    """The sshd of one folder. It is started when it is first needed and goes on running, for ``gpurun logs`` and other commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.key = folder / "login_key"

    def ensure(self) -> Host:
        """Starts the sshd unless it runs; gives the host to connect to. Raises BoxNotReady with what to install."""
        with file_lock(self.folder / "sshd", patience=60):  # making keys takes a while
            port = self.port()
            if port is None:
                self._make_keys()
                port = self._start()
        return self._host(port)

    def port(self) -> int | None:
        """The port on which the sshd listens; None when it does not run."""
        try:
            port = int((self.folder / "port").read_text())
            pid = int((self.folder / "sshd.pid").read_text())
            os.kill(pid, 0)
            with socket.create_connection(("127.0.0.1", port), timeout=2) as probe:
                probe.settimeout(5)
                return port if probe.recv(4) == b"SSH-" else None
        except (OSError, ValueError):
            return None

    def stop(self) -> bool:
        """Ends the sshd (sessions and runs go on); False when it did not run."""
        with contextlib.suppress(OSError, ValueError):  # it may have ended meanwhile
            if self.port() is not None:
                os.kill(int((self.folder / "sshd.pid").read_text()), signal.SIGTERM)
                return True
        return False

    @property
    def host_key(self) -> tuple[str, str]:
        """Type and base64 of the box's public key, so that it is pinned without asking the user."""
        words = (self.folder / "host_key.pub").read_text().split()
        return words[0], words[1]

    def _host(self, port: int) -> Host:
        return Host(
            typed=LOCAL,
            hostname="127.0.0.1",
            port=port,
            user=getpass.getuser(),
            identities=(str(self.key),),
            identities_only=True,
            volume=HOME,  # a box of its own, whatever machine it is on
            interpreters=(sys.executable,),
        )

    def _make_keys(self) -> None:
        for name in ("host_key", "login_key"):
            if not (self.folder / name).exists():
                make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"gpurun {name}", "-f"]
                subprocess.run(
                    [*make, str(self.folder / name)],
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
        shutil.copyfile(self.folder / "login_key.pub", self.folder / "authorized_keys")
        self.home.mkdir(exist_ok=True, mode=0o700)

    def _start(self) -> int:
        sshd = _find_sshd()
        if os.getuid() == 0 and sys.platform == "linux":
            # As root sshd needs this folder, which otherwise a system service makes.
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        for _ in range(5):  # another program may take the port before sshd does
            port = _free_port()
            log = self.folder / "sshd.log"
            (self.folder / "sshd_config").write_text(self._config(port))
            subprocess.run(
                [sshd, "-f", str(self.folder / "sshd_config"), "-E", str(log)],
                stdin=subprocess.DEVNULL,
                check=False,
                env={
                    "PATH": os.environ.get("PATH", os.defpath)
                },  # it runs on after gpurun, whose environment may hold a token
            )
            (self.folder / "port").write_text(str(port))
            if self._answers(port):
                return port
        raise BoxNotReady(
            f"the embedded sshd does not start; its log is {self.folder / 'sshd.log'}",
            hint=f"Try by hand: {sshd} -D -d -f {self.folder / 'sshd_config'}",
        )

    def _answers(self, port: int) -> bool:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if self.port() == port:
                return True
            time.sleep(0.02)
        return False

    def _config(self, port: int) -> str:
        variables = {"HOME": str(self.home), **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}}
        environment = " ".join(f'"{name}={value}"' for name, value in variables.items() if '"' not in value)
        return _CONFIG.format(port=port, folder=self.folder, user=getpass.getuser(), environment=environment)


def embedded() -> LocalBox:
    """The box of this GPURUN_HOME."""
    return LocalBox(places.local_box())


def _find_sshd() -> str:
    # sshd must be called by its absolute path, and /usr/sbin is not on everybody's PATH.
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin")
    if found is None:
        raise BoxNotReady(
            "--host local needs an SSH server on this machine, and there is none",
            meaning="Nothing was started.",
            hint="apt install openssh-server (it need not be enabled as a service), then repeat the command.",
        )
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
