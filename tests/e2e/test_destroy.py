"""``gpurun done --destroy``: only after "safe", and what is said of the box afterwards is true whatever the provider's tool says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner import store
from runner.domain.errors import HostError
from runner.domain.progress import Silent
from runner.host_notes import note_instance
from runner.workflow.connect import resolve_or_start_host
from runner.workflow.destroying import destroy as destroying
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import REPOSITORY, Gpurun

MODEL = 'import pathlib; pathlib.Path("models/w").write_text("w"); print("trained")'


@dataclass
class Rented:
    """A finished run, home, on a box that vast.ai's tool calls instance 77."""

    gpurun: Gpurun
    box: Box
    state: Path
    address: str
    run_id: str

    @property
    def command(self) -> str:
        return f"{self.state / 'bin' / 'vastai'} destroy instance 77"

    def mode(self, name: str) -> None:
        (self.state / "mode").write_text(name)

    @property
    def calls(self) -> list[str]:
        file = self.state / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def is_up(self) -> bool:
        return self.box.local.port() is not None

    def end(self, monkeypatch: pytest.MonkeyPatch, until: float = 0.5) -> destroying.Gone:
        """``done --destroy`` from where it is safe, with time limits that a test can wait for."""
        monkeypatch.setenv("GPURUN_HOME", str(self.gpurun.home))
        monkeypatch.setenv("FAKE_VAST", str(self.state))
        for name, seconds in (("COMMAND_LIMIT", 3.0), ("GONE_LIMIT", until), ("PAUSE", 0.05)):
            monkeypatch.setattr(destroying, name, seconds)
        return destroying.destroy(destroying.plan_destruction(store.load(self.run_id)), Silent())


def follow(gpurun: Gpurun, file: Path, address: str) -> str:
    run_id: str = gpurun.json("submit", str(file), "--host", address, "--follow")["runs"][0]["run_id"]
    return run_id


@pytest.fixture
def rented(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> Rented:
    state = tmp_path / "vast"
    state.mkdir()
    (state / "pid").write_text(str(box.sshd()))
    row = {
        "id": 77,
        "actual_status": "running",
        "public_ipaddr": "127.0.0.1",
        "ports": {"22/tcp": [{"HostPort": str(box.port)}]},
    }
    (state / "instances.json").write_text(json.dumps([row, {"id": 78}]))
    (state / "bin").mkdir()
    tool = state / "bin" / "vastai"
    tool.symlink_to(REPOSITORY / "tests" / "support" / "fake_vastai.py")
    gpurun.env["FAKE_VAST"] = str(state)
    address = box.address()
    run_id = follow(gpurun, job(MODEL), address)
    made = Rented(gpurun, box, state, address, run_id)
    made.mode("works")
    gpurun("hosts", "set", address, "--destroy", made.command)
    return made


def test_a_box_is_destroyed_only_when_it_is_safe_and_then_it_is_gone(
    rented: Rented, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpurun = rented.gpurun
    gpurun("hosts", "set", rented.address, "--destroy", "no-such-tool 77")
    assert "no-such-tool cannot be run on this machine" in gpurun("done", "--destroy", "--yes", check=3).stderr
    assert (
        "looks like a key" in gpurun("hosts", "set", rented.address, "--destroy", "tool --api-key 0123", check=2).stderr
    )
    (rented.box.root / "identity").write_text("0" * 32)  # as if another box had got the address
    gpurun("list", "--host", rented.address)
    assert "it is not known which command destroys" in gpurun("done", "--destroy", "--yes", check=2).stderr

    monkeypatch.setenv("GPURUN_HOME", str(gpurun.home))
    gpurun.env["PATH"] = f"{rented.state / 'bin'}:{os.environ['PATH']}"
    host = resolve_or_start_host(rented.address)
    note_instance(host, "vast", "78")  # a box that names another one of the same user's
    assert "does not have that box at this address" in gpurun("done", "--destroy", "--yes", check=3).stderr
    note_instance(host, "vast", "77")
    assert not [call for call in rented.calls if "destroy" in call]

    other = follow(gpurun, job(MODEL, name="other"), rented.address)
    (gpurun.home / "runs" / other / "outputs" / "models" / "w").unlink()
    said = gpurun.json("done", other, "--destroy", "--yes", check=6)
    assert other in said["reasons"][0] and said["destroyed"] is None and rented.is_up()
    gpurun("fetch", other)
    assert "add --yes" in gpurun("done", "--destroy", check=2).stderr
    assert not [call for call in rented.calls if "destroy" in call]
    assert gpurun.json("done", "--destroy", "--yes")["destroyed"] == "gone"
    assert not rented.is_up() and "destroy instance 77" in rented.calls
    assert rented.address not in {host["typed"] for host in gpurun.json("hosts")["hosts"]}


WRONG = {
    "fails": "ended with 1, and .* still answers, and costs money",
    "hangs": "did not end within 3 s and was stopped, and .* still answers, and costs money",
    "says yes": "ended well, and .* still answers, and costs money",
    "stops": "is stopped and not destroyed: its disk still costs money",
}


def test_a_box_is_never_called_gone_because_a_tool_says_so(rented: Rented, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode, said in WRONG.items():
        rented.mode(mode)
        with pytest.raises(HostError, match=said) as error:
            rented.end(monkeypatch)
        message = error.value.message
        assert "0123456789abcdef" not in message and ("[redacted]" in message) == (mode == "fails")
        assert rented.is_up() == (mode != "stops"), mode
    said = rented.gpurun("done", check=3).stderr  # its notes and its pin stay
    assert "stopped, and its disk still costs money" in said and "destroy instance 77" in said

    rented.box.start_sshd()
    (rented.state / "pid").write_text(str(rented.box.sshd()))
    rented.mode("cannot list")
    looks: list[bool] = []
    look: Callable[..., bool] = destroying.answers
    monkeypatch.setattr(destroying, "answers", lambda host: looks.append(look(host)) or looks[-1])
    gone = rented.end(monkeypatch, until=30.0)
    assert not gone.confirmed and looks[-destroying.SILENT_TIMES :] == [False] * destroying.SILENT_TIMES
    assert not rented.is_up()
    rented.mode("works")
    (rented.state / "instances.json").write_text("[]")
    assert "does not have it any more" in rented.gpurun("done", check=3).stderr
