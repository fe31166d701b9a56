"""What befalls the box of a run that ``gpurun keep`` stays beside: another key, another box at its address, a folder that is gone."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.checkpointing import PROGRAM, command, home
from tests.support.cli import Gpurun


class Keeping:
    """A run on a box, and a gpurun that keeps it and writes what it says into a file."""

    def __init__(self, gpurun: Gpurun, box: Box, job: Any, folder: Path) -> None:
        self.gpurun, self.box = gpurun, box
        file = job(PROGRAM, command=command("recipe"), outputs=["checkpoints"])
        self.run_id: str = gpurun.json("submit", str(file), "--host", box.address())["runs"][0]["run_id"]
        self.folder = box.root / "runs" / self.run_id
        self._errors = folder / "said"
        with open(self._errors, "w") as errors:
            self.process = subprocess.Popen(
                gpurun.argv("keep", self.run_id), env=gpurun.environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=errors, cwd=folder,
            )  # fmt: skip

    def said(self) -> str:
        return self._errors.read_text()

    def save(self, step: int) -> None:
        (self.folder / f"go-{step}").touch()
        self.await_home(step)

    def await_home(self, step: int) -> None:
        outputs = self.gpurun.home / "runs" / self.run_id / "outputs"
        wait_until(lambda: [saved.step for saved in home(outputs)][-1:] == [step], limit=90)

    def end(self, code: int) -> None:
        assert self.process.wait(timeout=90) == code and "Traceback" not in self.said(), self.said()


def end_processes(run: Path) -> None:
    """Kills a run and its supervisor."""
    everything, pid = processes.scan(), json.loads((run / "owner.json").read_text())["pid"]
    for each in (pid, *processes.descendants(everything, pid)):
        processes.send(everything[each], signal.SIGKILL)


def test_where_another_key_answers_nothing_is_sent_until_the_user_has_done_something(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    keeping = Keeping(gpurun, box, job, tmp_path)
    keeping.save(1)
    log = box.local.folder / "sshd.log"
    box.rekey()
    wait_until(lambda: "host key" in keeping.said())
    (keeping.folder / "go-2").touch()
    refused = log.read_bytes()
    wait_until((keeping.folder / "outputs/checkpoints/step-000002").exists)
    assert log.read_bytes() == refused, "it knocked again"
    gpurun("hosts", "forget", box.address())
    keeping.await_home(2)
    (keeping.folder / "end").touch()
    keeping.end(0)
    assert "connected again" in keeping.said()


def test_another_box_at_the_address_is_not_taken_for_the_end_of_the_run(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    keeping = Keeping(gpurun, box, job, tmp_path)
    keeping.save(1)
    box.end_sshd()
    end_processes(keeping.folder)
    away = box.root.rename(box.root.with_name("elsewhere"))
    box.start_sshd()
    wait_until(lambda: "another box answers" in keeping.said())
    assert "gpurun hosts move" in keeping.said() and keeping.process.poll() is None
    box.end_sshd()
    box.root.rename(box.root.with_name("the other box"))
    away.rename(box.root)
    box.start_sshd()
    keeping.end(12)  # by its own box's word


def test_a_run_whose_folder_is_gone_from_its_own_box_is_lost(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    keeping = Keeping(gpurun, box, job, tmp_path)
    keeping.save(1)
    end_processes(keeping.folder)
    keeping.folder.rename(tmp_path / "gone")
    keeping.end(12)
    assert "is not on the box" in keeping.said()
