"""What ``done`` and ``clean`` say is true of the box as it is: 'safe' only when nothing on it lives, waits or exists nowhere else, and
nothing is deleted that lives, or whose only copy is there and that nobody named.

The agent is a real process over real folders, locks and processes; only SSH is left out (a pipe instead).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import locks
from remote_payload.agent.run import manifest, slot
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.protocol import ExitRecord
from runner import store
from runner.domain import places
from runner.domain.answers.manifest import Artifact
from runner.domain.host import Host
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.transport.agent import Agent
from runner.transport.link import Link
from runner.workflow import clean as cleaning
from runner.workflow import done as proving
from runner.workflow.fetch import Receipt
from runner.workflow.fetching.verify import sha256
from tests.support.agent import running_agent
from tests.support.trials import trials

EXPERIMENT = "mayors"


@dataclass
class Fact:
    """The truth about one run on the box."""

    run_id: str
    what: str
    recorded: bool = True  # this machine knows it
    living: bool = False
    home: bool = True  # nothing of it is lost with the box
    pushed_only: bool = False  # it waits under incoming/
    elsewhere: bool = False  # below another root than the agent's
    complete: bool = False
    group: tuple[str, int] = ("", 0)
    ended_at: float = 0.0

    @property
    def blocks(self) -> bool:
        return self.living or self.pushed_only or not self.recorded or not self.home


@dataclass
class World:
    """One box and one laptop, put together step by step."""

    chance: random.Random
    home: Path
    facts: list[Fact] = field(default_factory=list)
    descriptors: list[tuple[str, int]] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def box(self) -> BoxPaths:
        return BoxPaths(str(self.home / ".gpurun-box"))

    @property
    def other_root(self) -> BoxPaths:
        return BoxPaths(str(self.home / "volume" / ".gpurun-box"))

    def told(self) -> str:
        return "\n".join(f"  {fact}" for fact in self.facts)

    # What can happen; each gives the fact that it makes true.

    def home_and_over(self) -> Fact:
        fact, run = self._finished("home")
        self._fetch(run)
        return fact

    def not_home(self) -> Fact:
        fact, _ = self._finished("not home")
        fact.home = False
        return fact

    def failed_with_a_log_alone(self) -> Fact:
        return self._finished("failed, a log alone", files=0, code=1)[0]

    def deleted_here_since(self) -> Fact:
        fact, run = self._finished("a file is gone here")
        victim = self.chance.choice(self._fetch(run))
        victim.unlink()
        fact.home = False
        return fact

    def changed_on_the_box_since(self) -> Fact:
        fact, run = self._finished("renamed on the box after the fetch")
        self._fetch(run)
        first = sorted(Path(run.outputs).rglob("*.bin"))[0]
        first.rename(first.with_name("by-hand.bin"))
        fact.home = False
        return fact

    def never_fetched(self) -> Fact:
        fact, run = self._finished("a link in its outputs")
        self._fetch(run)
        os.symlink("/etc/hostname", os.path.join(run.outputs, "leads-out"))
        Path(run.manifest).unlink()
        fact.home = False
        return fact

    def of_another_laptop(self) -> Fact:
        return self._finished("another laptop's", recorded=False)[0]

    def below_another_root(self) -> Fact:
        fact, run = self._finished("below another root", paths=self.other_root)
        fact.elsewhere = True
        fact.home = self.chance.random() < 0.5
        if fact.home:
            self._fetch(run, log=True)
        return fact

    def below_a_root_that_is_not_mounted(self) -> Fact:
        fact = Fact(
            self._mint(True, paths=BoxPaths("/not-mounted/.gpurun-box")), "below a root that is not there", home=False
        )
        return fact

    def running(self) -> Fact:
        fact, run = self._finished("running", recorded=self.chance.random() < 0.7, over=False)
        fact.living = True
        self._hold(run.run_id)
        self._process(run.run_id)
        return fact

    def waiting(self) -> Fact:
        fact, run = self._finished("waits for a GPU", over=False, files=0, log="")
        Path(run.owner).write_text(json.dumps({"waiting": "1 GPU"}))
        fact.living = True
        self._hold(run.run_id)
        return fact

    def survivor(self) -> Fact:
        fact, run = self._finished("over, a process is left")
        self._fetch(run)
        fact.living = True
        self._process(run.run_id)
        return fact

    def without_folder(self) -> Fact:
        fact = Fact(self._mint(recorded := self.chance.random() < 0.5), "lives without a folder", recorded, living=True)
        self._process(fact.run_id)
        return fact

    def pushed(self) -> Fact:
        fact = Fact(
            self._mint(recorded := self.chance.random() < 0.5, attempted=False), "pushed", recorded, pushed_only=True
        )
        code = Path(self.box.incoming(fact.run_id), "code")
        code.mkdir(parents=True)
        (code / "main.py").write_text("print(1)")
        return fact

    # How it is done.

    def _finished(
        self, what: str, *, recorded: bool = True, over: bool = True, files: int | None = None, code: int = 0,
        paths: BoxPaths | None = None, log: str = "line\n",
    ) -> tuple[Fact, RunPaths]:  # fmt: skip
        group = (self.chance.choice("ab"), self.chance.choice([5, 5000]))
        run_id = self._mint(recorded, group, paths)
        run = (paths or self.box).run(run_id)
        os.makedirs(run.outputs)
        Path(run.log).write_text(log)
        for number in range(self.chance.randint(1, 3) if files is None else files):
            file = Path(run.outputs, "models", f"{number}.bin")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(self.chance.randbytes(self.chance.randint(0, 2000)))
        slot.allocate(run)
        ended = 1000.0 + self.chance.random()
        if over:
            slot.write(run, ExitRecord("exit", code, ended))
            manifest.write(run)
        return Fact(
            run_id, what, recorded, complete=over and code == 0 and files != 0, group=group, ended_at=ended
        ), run  # fmt: skip

    def _mint(
        self, recorded: bool, group: tuple[str, int] = ("a", 5), paths: BoxPaths | None = None, attempted: bool = True
    ) -> str:
        run_id = f"mayors-20260102-{len(self.facts):06d}-{self.chance.randrange(1 << 16):04x}"
        if recorded:
            settings = {"max_steps": group[1], "seed": len(self.facts)}
            job = Job("mayors", outputs=("models",), settings=settings).at(Path("/"), Path("job.yaml"))
            run = Run(run_id, job, "box", 1.0 + len(self.facts), experiment=EXPERIMENT)
            run.address = "root@box"
            run.root, run.submission, run.attempted, run.launched = (
                (paths or self.box).root,
                group[0],
                attempted,
                attempted,
            )
            store.create(run)
        return run_id

    def _fetch(self, run: RunPaths, log: bool = False) -> list[Path]:
        """What a fetch leaves here: the files, and the receipt of each."""
        into = places.run_folder(run.run_id) / "outputs"
        receipt, here = Receipt(into), []
        for file in sorted(Path(run.outputs).rglob("*.bin")):
            name = str(file.relative_to(run.outputs))
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(file.read_bytes())
            receipt.note(Artifact(name, file.stat().st_size, sha256(file, file.stat().st_size)))
            here.append(into / name)
        receipt.save()
        if log:
            (places.run_folder(run.run_id) / "log").write_bytes(Path(run.log).read_bytes())
        return here

    def _hold(self, run_id: str) -> None:
        descriptor = locks.take_run(self.box.run(run_id))
        assert descriptor is not None
        self.descriptors.append((run_id, descriptor))

    def _process(self, run_id: str) -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "GPURUN_RUN_ID": run_id, "GPURUN_RUN_DIR": self.box.run(run_id).folder},
        )  # fmt: skip
        assert child.stdout is not None and child.stdout.readline()
        self.processes.append(child)

    def end(self) -> None:
        for child in self.processes:
            child.communicate(timeout=20)
        for run_id, descriptor in self.descriptors:
            locks.drop(locks.run_lock(self.box.run(run_id)), descriptor)


STEPS: tuple[tuple[Callable[[World], Fact], int], ...] = (
    (World.home_and_over, 8), (World.not_home, 2), (World.failed_with_a_log_alone, 2), (World.deleted_here_since, 1),
    (World.changed_on_the_box_since, 1), (World.never_fetched, 1), (World.of_another_laptop, 1), (World.below_another_root, 2),
    (World.below_a_root_that_is_not_mounted, 1),
    (World.running, 1), (World.waiting, 1), (World.survivor, 1), (World.without_folder, 1), (World.pushed, 1),
)  # fmt: skip


@pytest.fixture
def world(chance: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A box with something of a random history on it, and this machine's records of it."""
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    made = World(chance, tmp_path / "local-box" / "home")
    made.home.mkdir(parents=True)
    only_good = chance.random() < 0.3  # else hardly a box would be safe
    steps = STEPS[:1] + STEPS[2:3] if only_good else STEPS
    made.facts.append(made.home_and_over())
    try:
        for step in chance.choices(
            [step for step, _ in steps], [weight for _, weight in steps], k=chance.randint(1, 7)
        ):
            made.facts.append(step(made))
        yield made
    finally:
        made.end()


@contextmanager
def linked(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """stand_in for SSH: the agent's process is a child of this one."""
    with running_agent(world.home) as agent:
        link = Link(Host("box", "box", 22, "root"), Agent(agent), 0.001)

        @contextmanager
        def connect_to_run(run: Run, report: Any) -> Iterator[Link]:
            yield link

        monkeypatch.setattr(proving, "connect_to_run", connect_to_run)
        yield link


@trials("proofs", quick=3, full=40)
def test_safe_means_that_nothing_on_the_box_lives_or_waits_or_is_there_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = store.load(next(fact.run_id for fact in world.facts if fact.recorded))
    with linked(world, monkeypatch):
        verdict = proving.done(asked, Silent())
        blocking = {fact.run_id for fact in world.facts if fact.blocks}
        named = {
            run.run_id
            for run in world.facts
            if any(run.run_id in reason.split("gpurun done")[0] for reason in verdict.reasons)
        }
        assert named == blocking and verdict.safe == (not blocking), f"{world.told()}\nsaid: {verdict.reasons}"

        may_go = [fact.run_id for fact in world.facts if fact.blocks and (not fact.recorded or not fact.living)]
        given_up = world.chance.sample(may_go, world.chance.randint(0, len(may_go)))
        verdict = proving.done(asked, Silent(), give_up=tuple(given_up))
        assert verdict.safe == (blocking <= set(given_up)), (
            f"{world.told()}\n{given_up} given up, said: {verdict.reasons}"
        )


@trials("proofs", quick=3, full=40)
def test_nothing_is_deleted_that_lives_or_is_there_alone_unless_it_was_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [fact for fact in world.facts if os.path.isdir(world.box.run(fact.run_id).folder)]
    keep = world.chance.choice([None, 0, 1, 2])
    named = {fact.run_id for fact in world.chance.sample(there, world.chance.randint(0, 1))}
    asked = store.load(world.facts[0].run_id)
    with linked(world, monkeypatch) as link:
        proving.done(asked, Silent())
        choice = cleaning.choose(link, Silent(), tuple(named), None if keep is None else EXPERIMENT, keep or 0)
        cleaning.clean(link, Silent(), choice, dry_run=False, everything=world.chance.random() < 0.5)
    gone = {fact.run_id for fact in there if not os.path.exists(world.box.run(fact.run_id).folder)}
    free = {fact.run_id for fact in there if not fact.blocks}
    if keep is not None:
        free -= _first(there, named, keep)
    expected = {fact.run_id for fact in there if not fact.living and fact.run_id in free | named}
    assert gone == expected, f"{world.told()}\nnamed {named}, keep {keep}: {[vars(each) for each in choice.decided]}"


def _first(there: list[Fact], named: set[str], keep: int) -> set[str]:
    """The first complete runs of each group."""
    first: set[str] = set()
    for group in {fact.group for fact in there}:
        whole = [
            fact for fact in there
            if fact.group == group and fact.complete and fact.recorded and not fact.living and fact.run_id not in named
        ]  # fmt: skip
        first |= {fact.run_id for fact in sorted(whole, key=lambda fact: fact.ended_at)[:keep]}
    return first


BLOCKING = {
    World.home_and_over: False, World.failed_with_a_log_alone: False, World.not_home: True, World.deleted_here_since: True,
    World.changed_on_the_box_since: True, World.never_fetched: True, World.of_another_laptop: True, World.running: True,
    World.below_a_root_that_is_not_mounted: True, World.waiting: True, World.survivor: True, World.without_folder: True, World.pushed: True,
}  # fmt: skip


@pytest.mark.parametrize("step", BLOCKING, ids=lambda step: step.__name__)
def test_each_step_of_a_history_alone_decides_the_verdict(
    step: Callable[[World], Fact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    world = World(random.Random(step.__name__), tmp_path / "local-box" / "home")
    world.home.mkdir(parents=True)
    try:
        world.facts = [world.home_and_over(), step(world)]
        with linked(world, monkeypatch):
            verdict = proving.done(store.load(world.facts[0].run_id), Silent())
    finally:
        world.end()
    assert verdict.safe != BLOCKING[step], f"{world.told()}\nsaid: {verdict.reasons}"
