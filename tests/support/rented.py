"""A rented box: an sshd and a home folder of its own, under an address that may change."""

from __future__ import annotations

import getpass
from pathlib import Path

from runner.local_box import LocalBox
from tests.support.agent import wait_until


class Rented:
    """A box with an sshd of its own; its port changes with each ``move``."""

    def __init__(self, folder: Path) -> None:
        self.local = LocalBox(folder)
        self.address = self._start()

    def _start(self) -> str:
        port = self.local.ensure().port
        return f"ssh -p {port} {getpass.getuser()}@127.0.0.1 -i {self.local.key}"

    def move(self) -> str:
        """Gives the address from now on. Nothing answers at the one before."""
        assert self.local.stop()
        wait_until(lambda: self.local.port() is None)
        self.address = self._start()
        return self.address

    @property
    def runs(self) -> Path:
        """The folder of its runs."""
        return self.local.home / ".gpurun-box" / "runs"
