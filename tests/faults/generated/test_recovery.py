"""Boxes that are restarted with runs of every state, and that lose parts of their disk: what ``recover`` starts again, and what never.

Each trial has a container of its own (PID namespace, /dev/shm) in which agents work. It is killed and started again, files and folders
below ``$ROOT`` are deleted at random, and ``recover`` is asked for again and again: two at once, killed half-way, for runs that cannot go
on. What must hold at the end, by what the payloads wrote of themselves:

- no run is started again twice, and none that was over, or stopped, ever;
- those that had what they need were all started; those that lack something were not, and it was said why;
- they began in their old order: first those that ran, then those that waited, in the order of the queue;
- what had begun is told that it goes on, and has its outputs; what had not is not told.

GPUs are a file; all else is real.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.box.pythons import contents
from remote_payload.agent.box.snapshot import fingerprint
from runner.domain.errors import GpurunError
from tests.support.agent import Session, launch, run_id, status, wait_until
from tests.support.boxes.machine import Machine
from tests.support.trials import trials

PROGRAM = """
import os, sys, time
truth, go, name = sys.argv[1:]
def say(*words):
    descriptor = os.open(truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(words) + "\\n").encode())
had = open("out/state").read() if os.path.exists("out/state") else "nothing"
data = open("numbers/all.txt").read() if os.path.exists("numbers") else "none"
open("out/state", "w").write("begun")
say("begin", name, os.environ.get("GPURUN_RESUME", "anew"), had, data, os.environ["SECRET"])
while not os.path.exists(go):
    time.sleep(0.02)
say("end", name)
"""
ATTEMPT = "1700000000-0123abcd"
OVER = ("succeeded", "failed", "stopped")
RAN, WAITED = "running", "waiting"


@dataclass
class Made:
    """A run of before the restart: what it was, and the paths without which it must not start again."""

    run_id: str
    name: str
    kind: str
    gpus: int
    needs: list[str]  # relative to the root; a folder needs all that was in it


@dataclass
class Trial:
    chance: random.Random
    folder: Path
    gpus: int
    made: list[Made] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir()
        self.machine = Machine(self.home, self.folder / "gpus.json")
        self.paths = self.machine.paths
        self.root = Path(self.paths.root)
        self.truth, self.go = self.folder / "truth", self.folder / "go"
        self.truth.touch()
        row = {"name": "x", "memory_total": 1 << 34, "memory_used": 0, "utilisation": 0}
        rows = [{"number": n, "uuid": f"GPU-{os.urandom(6).hex()}", **row} for n in range(self.gpus)]
        (self.folder / "gpus.json").write_text(json.dumps(rows))

    # Before the restart

    def fill(self) -> None:
        """Runs of every kind, in the order in which they are submitted."""
        self.environment()
        with self.machine.agent() as agent:
            for number in range(self.chance.randint(1, 3)):
                self.submit(agent, f"o{number}", self.chance.choice(OVER), 0)
            for number in range(self.gpus + self.chance.randint(0, 2)):
                self.submit(agent, f"r{number}", RAN, 1 if number < self.gpus else 0)
            for number in range(self.chance.randint(2, 5)):
                self.submit(agent, f"w{number}", WAITED, 1)

    def environment(self) -> None:
        """One as gpurun builds it, but with nothing in it that takes time to install."""
        site = self.root / "envs" / "py-1" / "lib" / "python3" / "site-packages"
        (site / "pkg-1.dist-info").mkdir(parents=True)
        (site / "pkg.py").write_text("x = 1\n")
        (site / "pkg-1.dist-info" / "RECORD").write_text("pkg.py,sha256=x,6\npkg-1.dist-info/RECORD,,\n")
        (self.root / "envs" / "py-1" / "bin").mkdir()
        (self.root / "envs" / "py-1" / "bin" / "python").symlink_to(sys.executable)
        contents.note(str(self.root / "envs" / "py-1"))

    def submit(self, agent: Session, name: str, kind: str, gpus: int) -> None:
        run = run_id(name)
        code = self.push(run, {"main.py": PROGRAM, "lib/more.py": "y = 2\n", "out/.gitkeep": ""})
        needs = [
            f"runs/{run}/{each}" for each in ("job.json", "launch.json", "snapshot.json", "exit.slot", "owner.json")
        ]
        needs += [f"runs/{run}/code/main.py", f"runs/{run}/code/lib/more.py", f"runs/{run}/outputs/out"]
        needs += [f"runs/{run}/log", f"runs/{run}/events.jsonl"] if kind == RAN else []
        data, command = [], ["python", "main.py", str(self.truth), str(self.go), name]
        if self.chance.random() < 0.5:
            data = [{"path": "numbers", "key": self.data(agent, self.chance.choice("ab"))}]
            needs += [f"data/{data[0]['key']}/all.txt", f"data/.{data[0]['key']}.json"]
        interpreter = sys.executable
        if self.chance.random() < 0.5:
            interpreter = f"{self.root}/envs/py-1/bin/python"
            site = "envs/py-1/lib/python3/site-packages"
            needs += ["envs/py-1/bin/python", f"{site}/pkg.py", f"{site}/pkg-1.dist-info/RECORD"]
            needs += ["envs/py-1/gpurun-packages.json"]
        if kind in OVER and kind != "stopped":
            command = ["sh", "-c", "exit 0" if kind == "succeeded" else "exit 3"]
        more = {"interpreter": interpreter, "queue": True, "secrets": {"SECRET": "s3cret-value"}, "outputs": ["out"]}
        launch(agent, command, run, gpus=gpus, code=code, data=data, **more)
        if kind == "stopped":
            agent.call("stop", {"run_id": run, "grace": 0})
        if kind in OVER:
            wait_until(
                lambda: (
                    status(agent, run)["phase"] == "finished" and (self.root / "runs" / run / "manifest.json").exists()
                )
            )
        if kind == RAN:
            wait_until(lambda: f"begin {name} " in self.truth.read_text())
        self.made.append(Made(run, name, kind, gpus, needs))

    def push(self, name: str, files: dict[str, str]) -> dict[str, Any]:
        tree = Path(self.paths.incoming(f"{name}/{ATTEMPT}"))
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
        return {"incoming": f"{name}/{ATTEMPT}", "digest": "d" * 64, "marks": fingerprint(str(tree))}

    def data(self, agent: Session, name: str) -> str:
        key = f"numbers-{name * 24}"
        if not Path(self.paths.data(key)).exists():
            agent.call("seal", {**self.push(key, {"all.txt": name}), "key": key})
        return key

    # The restart, and what befalls the disk

    def lose(self) -> set[str]:
        """Deletes some files or folders below the root; the paths of all that is gone, relative to the root."""
        before = self.listing()
        places = [path for path in sorted(before) if path.startswith(("runs/", "data/", "envs/"))]
        for path in self.chance.sample(places, self.chance.choice((0, 0, 1, 2, 5))):
            self.history.append(f"deleted {path}")
            target = self.root / path
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        return before - self.listing()

    def listing(self) -> set[str]:
        found = set()
        for folder, folders, files in os.walk(self.root):
            found |= {os.path.relpath(os.path.join(folder, name), self.root) for name in folders + files}
        return found

    def whole(self, run: Made, lost: set[str]) -> bool:
        """Whether nothing is gone that the run needs. What its program wrote below its outputs cannot be known to be missing."""
        return not lost.intersection(run.needs)

    # Afterwards

    def recover(self, how: str) -> dict[str, Any]:
        """Asks what can be started and asks for all of it, in the ways that a user and a network have."""
        self.history.append(f"recover: {how}")
        with self.machine.agent() as agent:
            seen: dict[str, Any] = agent.call("recover", {})
            wishes = [
                {"earlier": run["status"]["run_id"], "run_id": run_id("again"), "secrets": ["SECRET"]}
                for run in seen["runs"]
                if not run["successor"] and (how == "all" or not (run["missing"] or run["environment"]))
            ]
            asked = {"start": wishes, "secrets": {"SECRET": "s3cret-value", "OTHER": "not-for-them"}}
            if how == "killed":
                self._half_way(agent, asked)
            elif how == "two":
                other = [{**wish, "run_id": run_id("other")} for wish in wishes]
                with self.machine.agent() as second:
                    threads = [
                        threading.Thread(target=asking.call, args=("recover", {**asked, "start": start}))
                        for asking, start in ((agent, wishes), (second, other))
                    ]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
            else:
                agent.call("recover", asked)
            return seen if how == "killed" else agent.call("recover", {})

    def _half_way(self, agent: Session, asked: dict[str, Any]) -> None:
        """The agent is killed after so many runs were started, or a moment later."""
        left = self.chance.randint(0, len(asked["start"]))
        moment = self.chance.choice((0.0, 0.02, 0.1))
        pipe = agent._pipe
        try:
            for _ in agent.stream("recover", asked):
                if left == 0:
                    break
                left -= 1
            time.sleep(moment)
        except GpurunError:
            pass
        everything = processes.scan()
        for pid in processes.descendants(everything, pipe.process.pid):
            if "serve" in processes.command(pid).split():
                processes.send(everything[pid], 9)
        pipe.process.wait(30)

    def begun(self) -> list[list[str]]:
        return [line.split()[1:] for line in self.truth.read_text().splitlines() if line.startswith("begin ")]

    def said(self, end: object) -> str:
        made = [f"{run.name} {run.kind} {run.run_id}" for run in self.made]
        return "\n  ".join(["history:", *made, *self.history, str(self.begun()), str(end)])


def play(trial: Trial) -> None:
    trial.machine.start()
    trial.fill()
    before = [words[0] for words in trial.begun()]
    trial.machine.kill()
    lost = trial.lose()
    trial.machine.start()
    for how in [trial.chance.choice(("killed", "two", "all", "once")) for _ in range(trial.chance.randint(1, 3))]:
        trial.recover(how)
    last = trial.recover("once")
    interrupted = [run for run in trial.made if run.kind in (RAN, WAITED)]
    expected = [run for run in interrupted if trial.whole(run, lost)]
    described = {run["status"]["run_id"]: run for run in last["runs"]}
    for run in interrupted:
        told = described.get(run.run_id)
        if run in expected:
            assert told and told["successor"], trial.said(f"{run.name} was not started: {told}")
        else:
            assert told is None or told["missing"] or told["environment"], trial.said(
                f"not said why {run.name} stays: {told}"
            )
    trial.go.touch()
    wait_until(lambda: len(trial.begun()) >= len(before) + len(expected), 60)
    with trial.machine.agent() as agent:
        wait_until(lambda: all(each["phase"] == "finished" for each in agent.call("status", {})["runs"]), 60)
    check(trial, trial.begun()[len(before) :], expected, lost)


def check(trial: Trial, begun: list[list[str]], expected: list[Made], lost: set[str]) -> None:
    """The invariants, by what the payloads said after the restart: name, GPURUN_RESUME, what was in the outputs, the data, the secret."""
    names = [words[0] for words in begun]
    assert sorted(names) == sorted(run.name for run in expected), trial.said(f"started again: {names}")
    in_turn = [run.name for run in expected if run.gpus]  # as they were made: the running ones first, then the queue
    served = [name for name in names if name in in_turn]
    for place, name in enumerate(served):
        assert in_turn.index(name) - place < trial.gpus, trial.said(f"{name} began out of its turn: {served}")
    kinds, ids = {run.name: run.kind for run in expected}, {run.name: run.run_id for run in expected}
    for name, resumed, had, _, secret in begun:
        wanted = ("auto", "begun") if kinds[name] == RAN else ("anew", "nothing")
        had = "begun" if kinds[name] == RAN and f"{ids[name]}/outputs/out/state" in " ".join(lost) else had
        assert (resumed, had, secret) == (*wanted, "s3cret-value"), trial.said(f"{name}: {resumed} {had}")


@pytest.fixture
def trial(chance: random.Random, tmp_path: Path) -> Iterator[Trial]:
    made = Trial(chance, tmp_path, chance.choice((1, 1, 2)))
    try:
        yield made
    finally:
        made.machine.kill()


@pytest.mark.stand_in
@trials("recovery", quick=2, full=60)
def test_after_a_restart_each_run_that_can_go_on_does_so_once_and_in_its_turn(trial: Trial) -> None:
    play(trial)
