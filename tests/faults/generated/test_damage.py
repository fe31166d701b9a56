"""Whatever is killed, damaged or removed of a run, and in whatever order: nothing that lives is called finished or may be deleted,
nothing that is dead is called running, and an exit that its supervisor saw is told as it was.

The truth is what the payload's processes wrote of themselves. Supervisors, payloads, files and locks are real; a GPU is a number.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import gpus, locks, processes
from remote_payload.agent.box.files import read_json
from remote_payload.agent.run import state
from remote_payload.agent.run.queue import allotment
from remote_payload.agent.verbs import clean, launch, stop
from remote_payload.agent.verbs.wipe import wipe
from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, volatile_folder
from remote_payload.agent.wire.request import Request
from tests.support.agent import FROM_SOURCE, run_id, wait_until
from tests.support.payloads import Truth
from tests.support.trials import trials

MANNERS: tuple[tuple[str, ...], ...] = (
    (), ("reexec",), ("overwrite",), ("silent",), ("reexec", "silent"), ("overwrite", "stubborn"),
    ("child:session",), ("child:session,bare",), ("child:bare,silent",), ("child:session,silent", "reexec"),
    ("child:bare", "child:session", "silent"), ("child:stubborn", "stubborn"),
    ("child:session,bare,silent",), ("child:session,bare,silent,twice", "reexec", "silent"),
)  # fmt: skip
Damage = Callable[[str], object]
DAMAGES: dict[str, Damage] = {
    "removed": lambda path: os.unlink(path) if os.path.isfile(path) else None,
    "emptied": lambda path: os.truncate(path, 0) if os.path.isfile(path) else None,
    "torn": lambda path: os.truncate(path, os.path.getsize(path) // 2) if os.path.isfile(path) else None,
    "garbage": lambda path: Path(path).write_bytes(os.urandom(64)) if os.path.isfile(path) else None,
    "other types": lambda path: _write(
        path, {"pid": "1", "start": None, "payload": 7, "gpus": "all", "started_at": "x"}
    ),
    "a list": lambda path: _write(path, [1, 2]),
    "a folder": lambda path: (DAMAGES["removed"](path), os.makedirs(path, exist_ok=True)),
}


def _threads(pid: int) -> int:
    """Of a process that is being killed: it keeps its files, and thereby its lock, until its last thread is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _write(path: str, value: Any) -> None:
    if os.path.isfile(path):
        Path(path).write_text(json.dumps(value))


@dataclass
class Trial:
    """One run, its truth, and what was done to it."""

    chance: random.Random
    folder: Path
    history: list[str] = field(default_factory=list)
    supervisor: tuple[int, int] = (0, 0)
    written: dict[str, Any] = field(default_factory=dict)
    shown_exit: bool = True  # the supervisor lived to see the main process end
    unreadable: bool = False  # both places that tell the exit were damaged after it was told

    def __post_init__(self) -> None:
        self.paths = BoxPaths(str(self.folder / "root"))
        self.run: RunPaths = self.paths.run(run_id("damage"))
        self.truth = Truth(self.folder / "truth", self.folder / "control")
        row = {"uuid": f"GPU-{os.urandom(6).hex()}", "name": "x", "memory_total": 1 << 34, "memory_used": 0}
        self.gpus = [gpus.Gpu(number=0, utilisation=0, **row)]  # type: ignore[arg-type]

    def begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A start, by an agent that may be killed half-way."""
        stand_in = self.folder / "gpus.json"
        stand_in.write_text(json.dumps([each._asdict() for each in self.gpus]))
        monkeypatch.setenv("GPURUN_FAKE_GPUS", str(stand_in))
        manner = self.chance.choice(MANNERS)
        args = {"run_id": self.run.run_id, "job": {}, "code": {}, "command": self.truth.command(*manner), "gpus": 1}
        args["secrets"] = {"HF_TOKEN": "hf_x"}
        if self.chance.random() < 0.15:
            self._begin_and_kill_the_agent(args, self.chance.uniform(0.05, 0.5))
        else:
            self.history.append(f"launch {manner}")
            launch.launch(Request(args, self.paths))
        owner = read_json(self.run.owner)
        if owner:
            self.supervisor = (owner["pid"], owner["start"])
            self.written = {"owner": read_json(self.run.owner), "gpus": read_json(self.run.gpus)}
            wait_until(lambda: len(self.truth.started()) > sum(way.startswith("child:") for way in manner))

    def _begin_and_kill_the_agent(self, args: dict[str, Any], after: float) -> None:
        self.history.append(f"launch {args['command'][7:]}, agent killed after {after:.2f} s")
        agent = subprocess.Popen(
            [*FROM_SOURCE, "serve", "0" * 32, self.paths.root], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert agent.stdin is not None
        agent.stdin.write(protocol.encode_json(protocol.REQUEST, 1, {"verb": "launch", "args": args}))
        agent.stdin.flush()
        time.sleep(after)  # the moment of the kill, not something awaited
        agent.kill()
        agent.wait()
        agent.stdin.close()
        wait_until(lambda: os.path.exists(self.run.owner) or not locks.is_held(self.run.lock))

    # What befalls it

    def kill_supervisor(self) -> None:
        self.shown_exit = self.shown_exit and state.slot.read(self.run) is not None
        self._kill("supervisor", *self.supervisor)

    def kill_main(self) -> None:
        self._kill_one("main")

    def kill_child(self) -> None:
        self._kill_one("child")

    def _kill_one(self, wanted: str) -> None:
        for name, pid, start in self.truth.started():
            if name == wanted:
                return self._kill(wanted, pid, start)

    def _kill(self, name: str, pid: int, start: int) -> None:
        victim = processes.is_alive(pid, start)
        self.history.append(f"kill {name}" if victim else f"kill {name}: it was dead")
        if victim:
            processes.send(victim, signal.SIGKILL)
            wait_until(lambda: processes.is_alive(pid, start) is None and _threads(pid) < 2)

    def exit(self) -> None:
        code = self.chance.choice((0, 3))
        self.history.append(f"exit {code}")
        if not self.truth.control.exists():
            self.truth.end_with(code)
        wait_until(lambda: "main" not in self.truth.living())

    def damage(self) -> None:
        name = self.chance.choice(("owner", "exit_slot", "lock", "log", "events", "gpus", "launch"))
        how = self.chance.choice(tuple(DAMAGES))
        self.history.append(f"{name}: {how}")
        if name in ("exit_slot", "events") and state.slot.read(self.run) is not None:
            self.unreadable = True
        try:
            DAMAGES[how](getattr(self.run, name))
        except OSError as error:
            self.history[-1] += f" ({error.strerror})"
        heals = name in ("owner", "gpus") and self.supervised() and "main" in self.truth.living()
        if heals and self.chance.random() < 0.5:  # else the supervisor may be killed before it has healed them
            wait_until(lambda: read_json(getattr(self.run, name)) == self.written[name])
            self.history[-1] += ", healed"

    def remove_locks(self) -> None:
        self.history.append("locks/ removed")
        shutil.rmtree(self.paths.locks, ignore_errors=True)

    def empty_shm(self) -> None:
        """All that is this trial's: other tests run beside it."""
        self.history.append("/dev/shm emptied")
        shutil.rmtree(volatile_folder(self.run.run_id), ignore_errors=True)
        for name in os.listdir(volatile_folder()) if os.path.isdir(volatile_folder()) else ():
            if self.gpus[0].uuid in name:
                os.unlink(os.path.join(volatile_folder(), name))

    # What is said of it

    def supervised(self) -> bool:
        return processes.is_alive(*self.supervisor) is not None

    def _supervisor_is_exiting(self) -> bool:
        """Its work is done and its lock free, the kernel has taken its memory, but not yet its line in /proc: neither alive nor dead."""
        return self.supervised() and not processes.command(self.supervisor[0])

    def look(self) -> None:
        """Status, GPU, clean and wipe beside the truth, at a moment at which the truth did not change."""
        for _ in range(100):
            before = (self.truth.living(), self.supervised())
            seen = state.status_of(self.run)
            held = allotment.name(self.gpus[0]) in allotment.holders(self.paths, self.gpus)
            kept = self._is_kept()
            wiped = self._is_wiped()
            if before == (self.truth.living(), self.supervised()) and not self._supervisor_is_exiting():
                return self._judge(seen, held, kept, wiped, *before)
        raise AssertionError(self.said("the truth never stood still"))

    def _is_kept(self) -> bool:
        answer = clean.clean(Request({"run_ids": [self.run.run_id]}, self.paths))
        return f"runs/{self.run.run_id}" in {item["path"] for item in answer["kept"]}

    def _is_wiped(self) -> bool:
        try:
            wipe(Request({"run_id": self.run.run_id}, self.paths))
            return True
        except AgentError:
            return False

    def _judge(
        self, seen: dict[str, Any], held: bool, kept: bool, wiped: bool, living: list[str], supervised: bool
    ) -> None:
        what = self.said(f"living: {living}, supervised: {supervised}; said: {seen}, {held=}, {kept=}, {wiped=}")
        finished = seen["phase"] == "finished"
        assert kept == bool(living or supervised), what
        assert wiped != bool(living or supervised), what
        assert held or not living, what
        assert not held or living or supervised, what
        if "main" in living:
            assert not finished, what
        if living and not supervised:
            assert seen["orphaned"], what
        if not living and not supervised:
            assert finished and not seen["orphaned"], what
            self._judge_end(seen, what)
        if self.truth.started():
            assert seen["phase"] != "prepared" and seen["cause"] != "not_started", what

    def _judge_end(self, seen: dict[str, Any], what: str) -> None:
        told = self.truth.exited()
        if told is not None and self.shown_exit and not self.unreadable:
            assert seen["exit"] is not None and seen["exit"]["number"] == told, what
            assert seen["outcome"] == ("succeeded" if told == 0 else "failed"), what
        if seen["outcome"] == "succeeded":
            assert told == 0, what

    def finish(self) -> None:
        """Stopped, nothing is left, and that is said."""
        self.history.append("stop")
        answer = stop.stop(Request({"run_id": self.run.run_id, "grace": 0.3}, self.paths))
        what = self.said(f"after stop: {answer}, living {self.truth.living()}")
        assert answer["survivors"] == [] and self.truth.living() == [], what
        wait_until(lambda: not self.supervised(), 20)
        self.look()

    def said(self, end: str) -> str:
        return "\n  ".join(["history:", *self.history, end])

    def clear(self) -> None:
        for _, pid, start in [*self.truth.started(), ("", *self.supervisor)]:
            victim = processes.is_alive(pid, start)
            if victim:
                processes.send(victim, signal.SIGKILL)


ACTIONS: tuple[tuple[Callable[[Trial], None], int], ...] = (
    (Trial.damage, 6), (Trial.kill_supervisor, 3), (Trial.kill_main, 2), (Trial.kill_child, 1), (Trial.exit, 2),
    (Trial.remove_locks, 1), (Trial.empty_shm, 2),
)  # fmt: skip


@pytest.fixture
def trial(chance: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    made = Trial(chance, tmp_path)
    os.makedirs(made.paths.runs)
    try:
        made.begin(monkeypatch)
        yield made
    finally:
        made.clear()


@pytest.mark.stand_in
@trials("damage", quick=8, full=200)
def test_what_is_said_of_a_run_is_true_whatever_befalls_it(trial: Trial) -> None:
    if not os.path.isdir(trial.run.folder):
        return  # the agent was killed before it had claimed anything
    trial.look()
    names, weights = zip(*ACTIONS, strict=True)
    for action in trial.chance.choices(names, weights, k=trial.chance.randint(1, 6)):
        action(trial)
        trial.look()
    trial.finish()
