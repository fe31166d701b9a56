"""A rented box: an sshd and a home folder of its own, under an address that may change."""

from __future__ import annotations

import getpass
import json
import shutil
import signal
import time
from pathlib import Path

from remote_payload.agent.box import processes
from runner.local_box import LocalBox
from tests.support.agent import wait_until


class Rented:
    """A box with an sshd of its own; its port changes with each ``move``."""

    def __init__(self, folder: Path) -> None:
        # Below this name a box sees the runs of its own home folder alone, not those of tests that run at the same time.
        self.local = LocalBox(folder / "local-box")
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


def kill(box: Rented, run_id: str) -> float:
    """Everything that lives on the box, then its disk, as when a rented one is taken away. The time at which it was."""
    owner = json.loads((box.runs / run_id / "owner.json").read_text())
    everything = processes.scan()
    sshd = int((box.local.folder / "sshd.pid").read_text())
    doomed = {pid for root in (sshd, owner["pid"]) for pid in (root, *processes.descendants(everything, root))}
    at = time.time()
    for pid in doomed:
        if pid in everything:
            processes.send(everything[pid], signal.SIGKILL)
    shutil.rmtree(box.local.folder, ignore_errors=True)
    return at
