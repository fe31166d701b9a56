"""A box that can be killed: its sshd and all that runs on it have a PID namespace of their own, and its disk is one folder."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
from pathlib import Path

from remote_payload.agent.wire.paths import BoxPaths
from runner.local_box import LocalBox
from tests.support.agent import wait_until
from tests.support.box import SSHD, only_as_root


class _WithGpus(LocalBox):
    """A box with stand-in GPUs: the agent reads them from a file."""

    def __init__(self, folder: Path, gpus: int) -> None:
        super().__init__(folder)
        row = {"name": "x", "memory_total": 1 << 34, "memory_used": 0, "utilisation": 0}
        rows = [{"number": number, "uuid": f"GPU-{os.urandom(6).hex()}", **row} for number in range(gpus)]
        folder.mkdir(parents=True)
        self.gpus = folder / "gpus.json"
        self.gpus.write_text(json.dumps(rows))

    def _config(self, port: int) -> str:
        return super()._config(port).rstrip() + f' "GPURUN_FAKE_GPUS={self.gpus}"\n'


class MortalBox:
    """Root only; with stand-in ``gpus``. ``die`` ends every process at once, with no signal that any could catch, and deletes its disk."""

    def __init__(self, folder: Path, gpus: int = 0) -> None:
        only_as_root()
        self.local = _WithGpus(folder, gpus) if gpus else LocalBox(folder)
        self.port = self.local.ensure().port  # makes keys and configuration
        assert self.local.stop()
        wait_until(lambda: self.local.port() is None)
        own_namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        sshd = [SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")]
        self.process = subprocess.Popen([*own_namespace, *sshd], stdin=subprocess.DEVNULL)
        wait_until(self._answers)

    @property
    def address(self) -> str:
        """What is typed after ``--host``."""
        return f"ssh -p {self.port} {getpass.getuser()}@127.0.0.1 -i {self.local.key}"

    @property
    def paths(self) -> BoxPaths:
        return BoxPaths(str(self.local.home / ".gpurun-box"))

    def die(self) -> None:
        self.end()
        shutil.rmtree(self.local.home)

    def end(self) -> None:
        """Ends it, and leaves its disk."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self._answers())

    def _answers(self) -> bool:
        from socket import create_connection

        try:
            with create_connection(("127.0.0.1", self.port), timeout=2) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False
