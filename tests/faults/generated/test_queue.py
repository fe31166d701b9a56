"""Runs that queue for GPUs, with supervisors and payloads killed, runs stopped and /dev/shm emptied at random: no two payloads are ever
on one GPU at once, no GPU stays free while a run waits for it, and whoever came first begins first.

The truth is what the payloads wrote of themselves: pid, start and GPU. GPUs are numbers; all else is real. A GPU is free from the
death of the last process on it until the next run is given it: how long a payload takes to its first word is not the queue's doing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json
from remote_payload.agent.run import slot, state
from remote_payload.agent.verbs import launch, stop
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, volatile_folder
from remote_payload.agent.wire.request import Request
from tests.support.agent import run_id
from tests.support.payloads import Truth
from tests.support.trials import trials

QUICK, SHORT, LONG = 2, (3, 7), (8, 20)  # the first few trials have fewer GPUs and runs
FREE_LIMIT = 3.0  # seconds that a GPU may be free while a run waits, less the time in which its supervisor had no core
WAYS: tuple[tuple[str, ...], ...] = ((), (), ("reexec",), ("child:session,bare",), ("child:bare,silent", "overwrite"))


@dataclass
class Queued:
    """One run: its truth, and what has become of it."""

    run: RunPaths
    truth: Truth
    began: bool = False
    over: bool = False  # stopped, or killed while it waited: it need not begin any more

    def supervisor(self) -> processes.Process | None:
        owner = read_json(self.run.owner) or {}
        return processes.is_alive(owner.get("pid"), owner.get("start"))

    def gpu(self) -> str:
        return next(words[4] for words in self.truth.lines() if words[0] == "start" and words[1] == "main")

    def promised(self) -> list[str]:
        """The GPUs it was given, until it is there to use them; none when nothing of it is left that could."""
        owner = read_json(self.run.owner) or {}
        payload = owner.get("payload") or {}
        if self.began or not (self.supervisor() or processes.is_alive(payload.get("pid"), payload.get("start"))):
            return []
        given: list[str] = (read_json(self.run.gpus) or {}).get("given") or []
        return given

    def waits(self) -> bool:
        """Whether it has not begun and may: it waits for a GPU, or for its payload's first word."""
        return not self.began and not self.over and self.supervisor() is not None and slot.read(self.run) is None


@dataclass
class Line:
    """All the runs in the order in which they were submitted."""

    chance: random.Random
    folder: Path
    count: int  # of GPUs
    length: int  # of the queue
    history: list[str] = field(default_factory=list)
    runs: list[Queued] = field(default_factory=list)
    most_at_once: int = 0
    looked_at: float = 0.0
    free: dict[str, float] = field(default_factory=dict)  # how long each GPU has been free while a run waits, by name
    last: dict[str, Queued] = field(default_factory=dict)  # who had it last
    queued_for: dict[int, float] = field(default_factory=dict)  # how long each process has waited for a core, by pid
    longest: float = 0.0

    def __post_init__(self) -> None:
        self.began_at = time.monotonic()
        self.paths = BoxPaths(str(self.folder / "root"))
        self.names = {str(number): f"GPU-{os.urandom(6).hex()}" for number in range(self.count)}
        rows = [
            {"number": int(n), "uuid": uuid, "name": "x", "memory_total": 1 << 34, "memory_used": 0, "utilisation": 0}
            for n, uuid in self.names.items()
        ]
        (self.folder / "gpus.json").write_text(json.dumps(rows))

    def note(self, what: str) -> None:
        self.history.append(f"{time.monotonic() - self.began_at:6.2f} {what}")

    def submit(self) -> None:
        number = len(self.runs)
        made = Queued(
            self.paths.run(run_id(f"q{number}")), Truth(self.folder / f"truth{number}", self.folder / f"end{number}")
        )
        way = self.chance.choice(WAYS)
        args = {"run_id": made.run.run_id, "job": {}, "code": {}, "command": made.truth.command(*way), "gpus": 1}
        args.update(queue=True, secrets={"HF_TOKEN": "hf_x"})
        self.runs.append(made)
        launch.launch(Request(args, self.paths))
        self.note(f"q{number} submitted {way}")

    # What befalls them

    def act(self) -> None:
        alive = [each for each in self.runs if each.truth.living()]
        waiting = [each for each in self.runs if each.waits()]
        actions = [
            (self.end, alive, 6),
            (self.kill_supervisor, alive, 2),
            (self.kill_main, alive, 2),
            (self.stop, alive, 1),
        ]
        actions += [(self.stop, waiting, 1), (self.kill_supervisor, waiting, 1), (self.freeze, waiting, 1)]
        possible = [(act, self.chance.choice(some), weight) for act, some, weight in actions if some]
        if self.chance.random() < 0.2:
            self.empty_shm()
        elif possible:
            act, victim, _ = self.chance.choices(possible, [weight for _, _, weight in possible])[0]
            act(victim)

    def end(self, victim: Queued) -> None:
        code = self.chance.choice((0, 1))
        self.note(f"{self.name(victim)} exits with {code}")
        victim.truth.end_with(code)
        if victim.supervisor() is None:  # what it leaves is nobody's to end
            self.kill_all(victim)

    def kill_all(self, victim: Queued) -> None:
        for name, pid, start in victim.truth.started():
            self._kill(victim, name, processes.is_alive(pid, start))

    def kill_main(self, victim: Queued) -> None:
        for name, pid, start in victim.truth.started():
            if name == "main":
                self._kill(victim, name, processes.is_alive(pid, start))

    def kill_supervisor(self, victim: Queued) -> None:
        victim.over = True  # if it waits it never begins; if it is about to begin it may
        self._kill(victim, "supervisor", victim.supervisor())

    def _kill(self, victim: Queued, what: str, process: processes.Process | None) -> None:
        if process is not None:
            self.note(f"{self.name(victim)}: {what} killed")
            processes.send(process, signal.SIGKILL)

    def stop(self, victim: Queued) -> None:
        victim.over = True
        self.note(f"{self.name(victim)} is stopped")
        answer = stop.stop(Request({"run_id": victim.run.run_id, "grace": 0.5}, self.paths))
        assert answer["survivors"] == [], self.said(f"survivors: {answer}")

    def freeze(self, victim: Queued) -> None:
        """Its supervisor, for longer than one look at the queue takes."""
        supervisor = victim.supervisor()
        if supervisor is not None:
            self.note(f"{self.name(victim)}: supervisor frozen for 0.7 s")
            processes.send(supervisor, signal.SIGSTOP)
            self.watch(0.7, frozen=True)
            processes.send(supervisor, signal.SIGCONT)

    def empty_shm(self) -> None:
        """All that is this trial's: other tests run beside it."""
        self.note("/dev/shm emptied")
        for each in self.runs:
            shutil.rmtree(volatile_folder(each.run.run_id), ignore_errors=True)

    # What must hold at every moment

    def watch(self, seconds: float, frozen: bool = False) -> None:
        """Looks again and again for as long as that, at least once."""
        deadline = time.monotonic() + seconds
        while True:
            self.look(frozen)
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def look(self, frozen: bool) -> None:
        living = {each.run.run_id: each.gpu() for each in self.runs if each.truth.living()}
        self.most_at_once = max(self.most_at_once, len(living))
        taken = list(living.values())
        assert len(taken) == len(set(taken)), self.said(f"two on one GPU: {living}")
        self._look_at_order()
        self._look_at_free_ones({self.names[gpu] for gpu in taken}, frozen)
        self.last.update({self.names[each.gpu()]: each for each in self.runs if each.run.run_id in living})

    def _look_at_free_ones(self, used: set[str], frozen: bool) -> None:
        now, promised = time.monotonic(), {gpu for each in self.runs for gpu in each.promised()}
        waiting = [each for each in self.runs if each.waits() and not each.promised()]
        passed, self.looked_at = now - self.looked_at, now
        starved = self._starved()
        for gpu in self.names.values():
            if frozen or not waiting or gpu in used | promised:
                self.free.pop(gpu, None)
                continue
            due = self._due(gpu, waiting[0])
            lost = starved.get(due.pid, 0.0) if due else 0.0
            self.free[gpu] = self.free[gpu] + max(0.0, passed - lost) if gpu in self.free else 0.0
            self.longest = max(self.longest, self.free[gpu])
            if self.free[gpu] > FREE_LIMIT:
                told = [(self.name(each), state.status_of(each.run)["evidence"]) for each in waiting]
                raise AssertionError(self.said(f"{gpu} is free for {self.free[gpu]:.1f} s: {told}"))

    def _due(self, gpu: str, first: Queued) -> processes.Process | None:
        """The supervisor that must act now: the one whose run had the GPU, until it gives it back, then that of the first that waits."""
        last = self.last.get(gpu)
        ending = last.supervisor() if last is not None and Path(last.run.gpus).exists() else None
        return ending or first.supervisor()

    def _starved(self) -> dict[int, float]:
        """How long each supervisor has waited for a core since the last look, by pid, as the kernel counted it."""
        supervisors = [process.pid for each in self.runs if (process := each.supervisor()) is not None]
        before, self.queued_for = self.queued_for, {pid: queued_for(pid) for pid in supervisors}
        return {pid: spent - before.get(pid, spent) for pid, spent in self.queued_for.items()}

    def _look_at_order(self) -> None:
        """Once a run has begun all that came before it have, or need not."""
        begun = [bool(each.truth.started()) for each in self.runs]
        for number, each in enumerate(self.runs):
            each.began = each.began or begun[number]
            passed = [other for other in self.runs[:number] if not other.began and other.waits()]
            if begun[number] and passed:
                # A payload is given its GPU before it can say so: those before it may still be on their way to their first word.
                late = [other for other in passed if (read_json(other.run.gpus) or {}).get("given") == []]
                assert not late, self.said(f"{self.name(each)} passed {[self.name(other) for other in late]}")

    def name(self, each: Queued) -> str:
        return f"q{self.runs.index(each)}"

    def said(self, end: str) -> str:
        return "\n  ".join(["history:", *self.history, end])

    def clear(self) -> None:
        for each in self.runs:
            supervisor = each.supervisor()
            if supervisor is not None:
                processes.send(supervisor, signal.SIGKILL)
        for each in self.runs:
            for _, pid, start in each.truth.started():
                process = processes.is_alive(pid, start)
                if process is not None:
                    processes.send(process, signal.SIGKILL)


def queued_for(pid: int) -> float:
    """Seconds that the process could have run and had no core, 0 where the kernel does not count that or it has ended."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def play(line: Line) -> None:
    """Submits them all, lets things happen to them, and sees the queue to its end."""
    for _ in range(line.length):
        line.submit()
        if line.chance.random() < 0.3:
            line.act()
        line.watch(0.0)
    ends = time.monotonic() + 120
    while any(each.waits() or each.truth.living() for each in line.runs):
        assert time.monotonic() < ends, line.said("the queue does not come to its end")
        line.act()
        line.watch(line.chance.uniform(0.0, 0.4))
    began = [each for each in line.runs if each.began]
    assert len(began) > line.count, line.said("hardly anything happened")
    assert line.most_at_once == line.count, line.said(f"at most {line.most_at_once} ran at once")
    for each in line.runs:
        assert each.began or each.over, line.said(f"{line.name(each)} never began: {state.status_of(each.run)}")


@pytest.fixture
def line(chance: random.Random, seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    made = Line(chance, tmp_path, *(SHORT if int(seed.rpartition("-")[2]) < QUICK else LONG))
    monkeypatch.setenv("GPURUN_FAKE_GPUS", str(tmp_path / "gpus.json"))
    try:
        yield made
    finally:
        made.clear()


@pytest.mark.stand_in
@trials("queue", quick=QUICK, full=30)
def test_a_queue_is_served_in_order_and_no_gpu_twice(line: Line) -> None:
    play(line)
