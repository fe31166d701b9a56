"""A canary token, a secret of the job's and planted credentials, through a failure, a resume and a ``done``: found nowhere."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.wire.paths import volatile_folder
from tests.support.agent import wait_until
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.hub import Hub
from tests.support.hub.state import Hub as State

TOKEN = "hf_" + "C4naryT0kenThatMustBeNowhere" + "y" * 6
SECRET = "canary-of-the-jobs-own-3141592653"
AWS, KEY, DOTENV = "AKIA" + "C4NARYKEY7654322", "canary-private-key-2718281828", "canary-of-dotenv-1618033988"
CANARIES = [TOKEN, SECRET, AWS, KEY, DOTENV]
MODEL = "acme/gated"

PROGRAM = f"""
import os, pathlib, sys, time
assert pathlib.Path(os.environ["HF_TOKEN_PATH"]).read_text() == {TOKEN[::-1]!r}[::-1]
assert os.environ["CANARY"] == {SECRET[::-1]!r}[::-1]
assert "HF_TOKEN" not in os.environ
pathlib.Path("models").mkdir(exist_ok=True)
print("holding", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
if not os.environ.get("GPURUN_RESUME"):
    raise ConnectionError("lost on purpose")
pathlib.Path("models/result").write_text("result")
"""


def hits_in_files(folders: Iterable[Path]) -> list[str]:
    """Files whose name or content holds a canary."""
    found = []
    for folder in folders:
        for top, _, names in os.walk(folder):
            for path in (Path(top, name) for name in names):
                if path.is_symlink() or not path.is_file():
                    continue
                text = os.fsencode(path) + path.read_bytes()
                found += [f"{path}: {canary[:12]}" for canary in CANARIES if canary.encode() in text]
    return found


def hits_in_processes(run_id: str) -> list[str]:
    """Argument lists of everybody, environments of everybody but the payload: the processes that carry the run's cookie."""
    found = []
    own = {process.pid for process in processes.by_cookie(processes.scan()).get(run_id, ())}
    for pid in processes.scan():
        for name in ("cmdline", *(() if pid in own else ("environ",))):
            try:
                content = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            found += [f"{pid} {name}: {canary[:12]}" for canary in CANARIES if canary.encode() in content]
    return found


def plant(folder: Path) -> None:
    """Credentials as they lie about in people's projects; one of them tracked by git."""
    (folder / ".env").write_text(f"PASSWORD={DOTENV}\n")
    (folder / "id_ed25519").write_text(
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY}\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    (folder / ".aws").mkdir()
    (folder / ".aws/credentials").write_text(f"[default]\naws_access_key_id = {AWS}\n")
    (folder / "notes.txt").write_text(f"the key is {AWS} and works\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-f", ".env", "main.py"], cwd=folder, check=True)


def on_a_terminal(gpurun: Gpurun, *words: str) -> str:
    """What a person sees: the command on a pseudo-terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        gpurun.argv(*words), env=gpurun.environment(), stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    process.wait()
    os.close(leader)
    return seen.decode("utf-8", "replace")


@pytest.fixture
def gated(hub: Hub, tmp_path: Path) -> State:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    hub.add_model(MODEL, model, gated=True)
    hub.add_account(TOKEN, "ada", granted=(MODEL,))
    return hub


def test_no_secret_is_left_anywhere_after_a_failure_a_resume_and_a_done(
    gpurun: Gpurun, gated: Hub, job: Any, figure: Record
) -> None:
    file = job(PROGRAM, hub={"models": [MODEL]}, secrets=["CANARY"])
    plant(file.parent)
    gpurun.env |= {"HF_ENDPOINT": gated.endpoint, "HF_TOKEN": TOKEN, "CANARY": SECRET}
    shown = on_a_terminal(gpurun, "submit", str(file), "--host", "local")
    first = gpurun.json("list")["runs"][0]["run_id"]
    found: list[str] = []

    def look(run_id: str) -> None:
        wait_until(lambda: "holding" in (gpurun.box_run(run_id) / "log").read_text())
        found.extend(hits_in_processes(run_id))
        found.extend(hits_in_files([gpurun.home]))
        (gpurun.box_run(run_id) / "code/go").touch()

    look(first)
    shown += on_a_terminal(gpurun, "logs", "-f")
    assert gpurun.json("status")["status"]["outcome"] == "failed"
    shown += on_a_terminal(gpurun, "resume")
    second = gpurun.json("list")["runs"][-1]["run_id"]
    assert second != first
    look(second)
    for words in (("logs", "-f"), ("status",), ("fetch",), ("done",), ("list",)):
        shown += on_a_terminal(gpurun, *words)
    assert "Safe to destroy" in shown
    found += hits_in_files([gpurun.home, Path("/dev/shm")]) + hits_in_processes("nobody")
    found += [f"terminal: {canary[:12]}" for canary in CANARIES if canary in shown]
    print("\n".join(found))
    figure("canary secrets found after a failure, a resume and a done", len(found), 0)
    assert not any(Path(volatile_folder(run_id), "hf_token").exists() for run_id in (first, second))


def test_the_search_finds_a_canary_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "leak").write_text(f"x{TOKEN}y")
    assert hits_in_files([tmp_path])
    with subprocess.Popen(["sleep", "60"], env={"HF_TOKEN": TOKEN}) as leaking:
        try:
            wait_until(lambda: Path(f"/proc/{leaking.pid}/comm").read_text() == "sleep\n")
            assert any(entry.startswith(f"{leaking.pid} ") for entry in hits_in_processes("nobody"))
        finally:
            leaking.kill()


def test_no_fixture_of_this_repository_holds_a_credential() -> None:
    """``git log -p`` would show it for ever; canaries are written in pieces."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        content = Path(name).read_bytes() if Path(name).is_file() else b""
        assert TOKEN.encode() not in content and AWS.encode() not in content, name
