"""A run starts at most once, and from one state of the folder that existed between the start of the try that launched it and the launch:
whenever clients are killed, stopped or interrupted, however many there are, and whatever is edited between and during the tries.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_payload.tokens import find_token
from tests.support.agent import wait_until
from tests.support.cli import Gpurun
from tests.support.trials import trials

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b"
OWN_LOG = "submit.log"

# Says what lies in its working directory: path → [mode, sha256] or [target]; and that it was started.
PROGRAM = """
import hashlib, json, os, time
with open(os.environ["GPURUN_RUN_DIR"] + "/starts", "a") as starts:
    starts.write("started\\n")
found = {}
for folder, folders, names in os.walk("."):
    for name in names + [each for each in folders if os.path.islink(os.path.join(folder, each))]:
        path = os.path.join(folder, name)
        about = os.lstat(path)
        if os.path.islink(path):
            found[path[2:]] = [os.readlink(path)]
        else:
            found[path[2:]] = [about.st_mode & 0o777, hashlib.sha256(open(path, "rb").read()).hexdigest()]
print(json.dumps({"at": time.time(), "tree": found}), flush=True)
"""

# Moments that random times seldom hit: just before and after what changes something on the box or in the record.
POINTS = [
    f"{point}:{when}"
    for point in (
        "runner.workflow.submission.push:push",
        "runner.workflow.submission.push:send",
        "runner.workflow.submission.push:changed",
        "runner.transport.transfer.rsync:push",
        "runner.transport.transfer.tarball:push",
        "runner.workflow.submission.launch:launch",
        "runner.transport.agent:Agent.patch",
        "runner.transport.agent:Agent.launch",
    )
    for when in ("before", "after")
]
Tree = dict[str, list[Any]]
reached: Counter[str] = Counter()


class Folder:
    """A project that is edited by one atomic step at a time; what it was after each step, and when."""

    def __init__(self, root: Path, chance: random.Random, note: Any) -> None:
        self.root, self.chance, self.note = root, chance, note
        self.outside = root.parent / "scratch"
        self.outside.mkdir()
        self.exclude: list[str] = []
        self.states: list[tuple[float, Tree]] = []
        self.number = 0
        root.mkdir()
        count = chance.choice([3, 8, 40, 250])
        for number in range(count):
            self.write(root / chance.choice(["", "src", "src/deep"]) / f"file_{number}.py", f"value = {number}\n")
        self.write(root / "main.py", PROGRAM)
        self.job()
        self.remember()
        note(f"a folder of {count} files")

    def job(self) -> None:
        body = {
            "name": "probe",
            "command": ["python3", "main.py"],
            "resources": {"gpus": 0},
            "code": {"exclude": self.exclude},
        }
        self.write(self.root / "job.yaml", json.dumps(body))

    def write(self, path: Path, text: str) -> None:
        """A new file in the place of the old one, as editors write."""
        self.number += 1
        beside = self.outside / str(self.number)
        beside.write_text(text)
        if path.exists():
            beside.chmod(stat.S_IMODE(path.stat().st_mode))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(beside, path)

    def files(self) -> list[Path]:
        keep = {self.root / name for name in ("main.py", "job.yaml", OWN_LOG)}
        return sorted(
            path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink() and path not in keep
        )

    def edit(self, between: bool) -> None:
        """One random change. What is excluded is changed ``between`` tries only, as each reads its job file once."""
        kinds = ["edit", "in place", "in place", "delete", "delete", "rename", "add", "permissions", "secret", "link"]
        kind, files = self.chance.choice([*kinds, *(["exclude"] if between else [])]), self.files()
        if not files:
            kind = "add"
        path = self.chance.choice(files) if files else self.root
        self.number += 1
        new = self.root / self.chance.choice(["", "src", "more"]) / f"new_{self.number}.py"
        new.parent.mkdir(exist_ok=True)
        if kind == "edit":
            self.write(path, f"edited = {self.number}\n")
        elif kind == "in place":  # the same size, often within the same second
            with open(path, "r+b", buffering=0) as file:
                old = file.read()
                file.seek(0)
                file.write((f"#{self.number}#".encode() + old)[: len(old)])
        elif kind == "delete":
            path.unlink()
        elif kind == "rename":
            path.rename(new)
        elif kind == "permissions":
            path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o111)
        elif kind == "secret":
            self.write(path, f"# {TOKEN}\n")
        elif kind == "link":
            os.symlink(self.chance.choice(["main.py", "src/nowhere"]), new.with_suffix(".link"))
        elif kind == "exclude":
            self.exclude = [*self.exclude, f"/{path.relative_to(self.root)}"]
            self.job()
        else:
            self.write(new, f"new = {self.number}\n")
        reached[f"{kind}, {'between' if between else 'during'} tries"] += 1
        self.note(f"{kind} {path.name if kind not in ('add', 'link') else new.name}")
        self.remember()

    def remember(self) -> None:
        self.states.append((time.time(), self.now()))

    def now(self) -> Tree:
        """What should be sent of it."""
        found: Tree = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = [os.readlink(path)]
            elif path.is_file() and f"/{name}" not in self.exclude and name != OWN_LOG:
                content = path.read_bytes()
                if find_token(content) is None:
                    found[name] = [stat.S_IMODE(path.stat().st_mode), hashlib.sha256(content).hexdigest()]
        return found

    def between(self, since: float, until: float) -> list[Tree]:
        """The states that existed in a stretch of time."""
        first = max(number for number, (at, _) in enumerate(self.states) if number == 0 or at <= since)
        return [
            tree
            for number, (at, tree) in enumerate(self.states)
            if number >= first and (number == first or at <= until)
        ]


class Client:
    """One ``gpurun submit``, with its output in a file outside the folder, or in it."""

    def __init__(self, command: Gpurun, folder: Folder, words: list[str], point: str | None, inside: bool) -> None:
        module = ["tests.support.killed_at", point, "--"] if point else ["runner.cli"]
        self.output = (folder.root / OWN_LOG) if inside else folder.outside / f"output-{time.time_ns()}"
        self.since = time.time()
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module, *command.argv(*words)[3:]],
                cwd=folder.root,
                env=command.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def may_have_launched(self) -> bool:
        """Not one that only attached; one that was frozen in its launch loses the link, and attaches to what it launched itself."""
        return "attached" not in self.said or "trying again" in self.said


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpurun]:
    """One embedded sshd for all trials; each trial has a root of its own on it."""
    folder = tmp_path_factory.mktemp("submit")
    command = Gpurun(folder / "gpurun-home", {"HF_HOME": str(folder / "hf-home")})
    yield command
    command("hosts", "forget", "local", check=None)


@trials("submit", quick=2, full=120)
def test_what_runs_is_one_state_of_the_folder(command: Gpurun, tmp_path: Path, chance: random.Random) -> None:
    history: list[str] = []
    began = time.time()

    def note(what: str) -> None:
        history.append(f"{time.time() - began:6.2f} s  {what}")

    folder, volume = Folder(tmp_path / "project", chance, note), tmp_path / "volume"
    volume.mkdir()
    checksum = ["--checksum"] if chance.random() < 0.15 else []
    words = ["submit", "job.yaml", "--host", "local", "--volume", str(volume), *checksum]
    runs = volume / ".gpurun-box" / "runs"
    if chance.random() < 0.4:
        note("a run before, of the folder as it was")
        first = Client(command, folder, words, None, False)
        assert first.process.wait(120) == 0, first.said
        for _ in range(chance.randrange(3)):
            folder.edit(between=True)
    before = {path.name for path in runs.iterdir()} if runs.is_dir() else set()
    clients, stopped, run_id = [], [], ""
    for number in range(chance.choice([1, 1, 2])):
        how = chance.choice(["kill", "point", "point", "stop", "interrupt"])
        point = chance.choice(POINTS) if how == "point" else None
        inside = chance.random() < 0.15 and not clients  # one at a time writes there, or nobody knows who said what
        client = Client(command, folder, words + (["--run", run_id] if run_id else []), point, inside)
        clients.append(client)
        run_id = run_id or wait_until(lambda client=client: new_id(client.said))
        note(f"client {number}: {how} {point or ''}")
        disturb(client, how, chance, folder)
        if how == "stop":
            stopped.append(client)
        note(f"client {number} is {'stopped' if how == 'stop' else f'over: {client.process.returncode}'}")
        if [*volume.glob(f".gpurun-box/incoming/{run_id}/*/*")] and not (runs / run_id).exists():
            reached["cut off with something pushed"] += 1
        for _ in range(chance.randrange(4)):
            folder.edit(between=True)
    inside = chance.random() < 0.15 and not any(each.output.name == OWN_LOG for each in clients)
    last = Client(command, folder, [*words, "--run", run_id], None, inside)
    clients.append(last)
    note("the last client")
    if stopped and chance.random() < 0.5:
        time.sleep(chance.uniform(0, 1.5))  # a moment, not something awaited
        wake(stopped, note)
    meanwhile = chance.choice([0, 0, 1, 2])
    if meanwhile and chance.random() < 0.5:
        await_push(last, volume / ".gpurun-box" / "incoming" / run_id)
    for _ in range(meanwhile):
        folder.edit(between=False)
        time.sleep(chance.uniform(0, 0.6))
    code = last.process.wait(120)
    note(f"the last client is over: {code}")
    for _ in range(chance.randrange(3)):
        folder.edit(between=True)
    wake(stopped, note)
    for client in clients:
        client.process.wait(120)
    told = "\n".join([*history, *(f"--- client {number}\n{each.said}" for number, each in enumerate(clients))])
    assert code == 0, told
    log = runs / run_id / "log"
    wait_until(lambda: log.exists() and log.read_bytes().endswith(b"\n"))
    ran = json.loads(log.read_text())
    assert (runs / run_id / "starts").read_text() == "started\n", told
    assert {path.name for path in runs.iterdir()} == before | {run_id}, told
    launcher = [last] if "attached" not in last.said else [each for each in clients if each.may_have_launched]
    reached["attached" if launcher != [last] else "launched by the last"] += 1
    reached["patched"] += "of" in last.said and " files): ok" in last.said and f" of {len(ran['tree'])} " in last.said
    reached["sent again"] += any("sending again" in each.said for each in clients)
    if launcher == [last] and last.output.name == OWN_LOG:
        assert OWN_LOG not in ran["tree"], told
    ran["tree"].pop(OWN_LOG, None)  # what an earlier client said there is a file like any other
    assert launcher, told
    possible = [tree for each in launcher for tree in folder.between(each.since, ran["at"])]
    assert ran["tree"] in possible, f"{difference(ran['tree'], possible[-1])}\n{told}"


def test_the_histories_reach_what_is_interesting() -> None:
    """After all of them, in one process: a history that is cut off before anything was pushed proves nothing."""
    tried = reached["attached"] + reached["launched by the last"]
    if tried < 30:
        pytest.skip(f"only {tried} histories were tried in this process")
    for what in ("cut off with something pushed", "attached", "launched by the last", "sent again", "patched"):
        assert reached[what] >= tried // 30, reached
    for kind in ("delete", "rename", "exclude", "secret", "permissions", "in place"):
        assert reached[f"{kind}, between tries"] >= tried // 30, reached


def disturb(client: Client, how: str, chance: random.Random, folder: Folder) -> None:
    """Lets the client go on for a while (edits are made meanwhile), then ends or stops it; by itself where it dies at a point."""
    until = time.time() + chance.uniform(0, 1.8)
    while client.process.poll() is None and (how == "point" or time.time() < until):
        if chance.random() < 0.02:
            folder.edit(between=False)
        time.sleep(0.02)
    number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "interrupt": signal.SIGINT}.get(how)
    if number and client.process.poll() is None:
        client.process.send_signal(number)
    if how != "stop":
        client.process.wait(120)


def await_push(client: Client, incoming: Path) -> None:
    """Until it pushes, in an attempt that was not there before, or is over."""
    before = set(incoming.glob("*"))
    while client.process.poll() is None and set(incoming.glob("*")) <= before:
        time.sleep(0.005)


def wake(stopped: list[Client], note: Any) -> None:
    for client in stopped:
        if client.process.poll() is None:
            client.process.send_signal(signal.SIGCONT)
            note("the stopped client goes on")
    stopped.clear()


def new_id(said: str) -> str:
    """The id in the first line that a client prints, once it stands there whole."""
    ids = [
        line.split()[1] for line in said.splitlines(keepends=True) if line.startswith("run ") and line.endswith("\n")
    ]
    return ids[-1] if ids else ""


def difference(ran: Tree, meant: Tree) -> str:
    """In what a tree is not the last of those that it could have been."""
    names = sorted(name for name in {*ran, *meant} if ran.get(name) != meant.get(name))
    return "\n".join(f"{name}: ran {ran.get(name)}, the folder had {meant.get(name)}" for name in names[:8])
