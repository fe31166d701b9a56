"""Runs that queue for GPUs, with supervisors and payloads killed, runs stopped and /dev/shm emptied at random: no two payloads are ever
on one GPU at once, no GPU stays free while a run waits for it, and whoever came first begins first.

The truth is what the payloads wrote of themselves: pid, start and GPU. GPUs are numbers; all else is real.
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

from remote_payload.agent import launch, processes, slot, state, stop
from remote_payload.agent.files import read_json
from remote_payload.agent.paths import BoxPaths, RunPaths, volatile_folder
from remote_payload.agent.request import Request
from tests.support.agent import run_id
from tests.support.payloads import Truth
from tests.support.trials import trials

QUICK, SHORT, LONG = 2, (3, 7), (8, 20)  # the first few trials have fewer GPUs and runs
FREE_LIMIT = 3.0  # seconds that a GPU may be free while a run waits, on a machine that has nothing else to do
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

    def waits(self) -> bool:
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
    lag: float = 0.0  # what the machine took longer than asked, since a GPU came free
    free_since: float | None = None

    def __post_init__(self) -> None:
        self.began_at = time.monotonic()
        self.paths = BoxPaths(str(self.folder / "root"))
        rows = [
            {"number": n, "uuid": f"GPU-{os.urandom(6).hex()}", "name": "x", "memory_total": 1 << 34, "memory_used": 0, "utilisation": 0}
            for n in range(self.count)
        ]  # fmt: skip
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
            before = time.monotonic()
            self.look(frozen)
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
            self.lag += max(0.0, time.monotonic() - before - 0.1)

    def look(self, frozen: bool) -> None:
        living = {each.run.run_id: each.gpu() for each in self.runs if each.truth.living()}
        self.most_at_once = max(self.most_at_once, len(living))
        taken = list(living.values())
        assert len(taken) == len(set(taken)), self.said(f"two on one GPU: {living}")
        self._look_at_order()
        waiting = [each for each in self.runs if each.waits()]
        busy = len(living) + sum(each.supervisor() is not None and slot.read(each.run) is None and not each.waits()
                                 and each.run.run_id not in living for each in self.runs)  # fmt: skip
        if frozen or not waiting or busy >= self.count:
            self.free_since, self.lag = None, 0.0
        elif self.free_since is None:
            self.free_since = time.monotonic()
        else:
            free = time.monotonic() - self.free_since
            told = [state.status_of(each.run)["evidence"] for each in waiting] if free > FREE_LIMIT else []
            # Beside other tests everything takes longer, looking too: what a pause took beyond its length counts several times.
            assert free < FREE_LIMIT + 10 * self.lag, self.said(
                f"a GPU is free for {free:.1f} s (lag {self.lag:.1f}): {told}"
            )

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
