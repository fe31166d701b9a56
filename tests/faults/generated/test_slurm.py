"""Runs on a real Slurm to which things happen at random: daemons, supervisors and nodes are killed, jobs are put into the queue again,
signalled and cancelled, the controller is away, ``squeue`` answers with nothing.

What must hold, by what the payloads wrote of themselves and by the processes on the nodes:

- a run never lives twice at a moment, and none is called over while its payload lives;
- what is said of a run that is over is never taken back;
- its numbers are those of a run without a break, and each life begins where a checkpoint of an earlier one is;
- every run ends, and its outcome is one that the things that happened to it allow;
- nothing of its secrets stays on the shared disk; nor in a node's memory, once another run has begun there.

The two minutes after a requeue, the minute of a heartbeat and the five of an absence are not waited for: the test starts the job, and
makes the files older whose ages these are; of a heartbeat only where its writer is dead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.wire.paths import BoxPaths
from runner.domain.errors import GpurunError
from tests.support.agent import FROM_SOURCE, Session, launch, run_id, running_agent, status, until_finished, wait_until
from tests.support.boxes.slurm import BEGIN, NODES, PATH, Cluster, running_cluster
from tests.support.trajectory import PROGRAM, Life, at_the_same_time, lives, straight
from tests.support.trials import trials

STEPS = 40
SECRET = "s3cret-of-slurm"
# Answers with nothing as often as there are files beside it, then asks the real one.
SQUEUE = """#!/bin/sh
for file in "{folder}"/empty-*; do [ -e "$file" ] && rm "$file" && exit 0; done
exec /usr/bin/squeue "$@"
"""


@dataclass
class Run:
    run_id: str
    requeue: bool
    happened: set[str] = field(default_factory=set)
    over: tuple[Any, Any] | None = None  # outcome and cause, once it was said to be over


@dataclass
class Trial:
    chance: random.Random
    cluster: Cluster
    folder: Path
    runs: list[Run] = field(default_factory=list)
    down: dict[str, str] = field(default_factory=dict)  # what is not there now: a node's slurmd, a node, the controller
    hurried: dict[str, float] = field(default_factory=dict)  # when a job's wait after a requeue was made short
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir()
        self.truth = self.folder / "truth"
        self.paths = BoxPaths(str(self.home / ".gpurun-box"))
        squeue = self.cluster.commands / "squeue"
        squeue.write_text(SQUEUE.format(folder=self.folder))
        squeue.chmod(0o755)

    @contextlib.contextmanager
    def agent(self) -> Iterator[Session]:
        """An agent on the login node, which has no processes of the nodes: here it is the controller's machine."""
        entered = ["nsenter", "-t", str(self.cluster.controller.first()), "-p", "-m", "-u", *FROM_SOURCE]
        path = f"{self.cluster.commands}:{PATH}"
        with running_agent(self.home, entered, PATH=path, **self.cluster.environment) as session:
            yield session

    # What is there

    def on_nodes(self) -> list[tuple[str, processes.Process, str]]:
        """Every process of a node with its command line."""
        return [
            (name, each, processes.command(each.pid))
            for name, node in self.cluster.nodes.items()
            if node.process.poll() is None
            for each in node.processes()
        ]

    def payloads(self, run: Run) -> list[processes.Process]:
        return [each for _, each, line in self.on_nodes() if line.endswith(f"payload {run.run_id}")]

    def supervisors(self, run: Run) -> list[processes.Process]:
        return [each for _, each, line in self.on_nodes() if line.endswith(f"batch {self.paths.root} {run.run_id}")]

    # What happens

    def submit(self) -> None:
        with self.agent() as agent:
            for number in range(self.chance.randint(2, 4)):
                run = Run(run_id(f"r{number}"), requeue=self.chance.random() < 0.6)
                variables = {"TRUTH": str(self.truth), "NAME": run.run_id, "STEPS": str(STEPS), "PACE": "0.1"}
                command = [sys.executable, "-S", "-c", PROGRAM, "payload", run.run_id]
                more = {"outputs": ["models"], "variables": variables, "secrets": {"KEY": SECRET, "HF_TOKEN": SECRET}}
                slurm = {"requeue": run.requeue}
                launch(
                    agent, command, run.run_id, gpus=self.chance.choice([1, 2]), slurm=slurm, time_limit=3600, **more
                )
                self.runs.append(run)

    def note(self, what: str, *runs: Run) -> None:
        self.history.append(f"{time.monotonic():.2f} {what} {' '.join(run.run_id for run in runs)}")
        for run in runs:
            run.happened.add(what)

    def job(self, run: Run) -> str:
        """Its number in Slurm's list; empty where it is over, or the controller is away."""
        return self.cluster.ask("squeue", "-h", "-n", run.run_id, "-o", "%A", check=False)

    def on(self, node: str) -> list[Run]:
        return [run for run in self.runs for name, _, line in self.on_nodes() if name == node and run.run_id in line]

    def happen(self) -> None:
        """One thing, of those that can happen now."""
        what = self.chance.choice(
            [
                "nothing",
                "nothing",
                "empty",
                "empty",
                "requeue",
                "requeue",
                "supervisor",
                "slurmd",
                "power",
                "controller",
                "scancel",
                "stop",
            ]
        )
        run, node = self.chance.choice(self.runs), self.chance.choice(NODES)
        job = self.job(run)
        if what == "empty":
            for number in range(self.chance.randint(1, 2)):
                (self.folder / f"empty-{number}").touch()
            self.note(what)
        elif what in ("slurmd", "power") and not self.down:
            self.note(what, *(self.on(node) if what == "power" else ()))
            if what == "power":
                self.cluster.fail_node(node)
            else:
                self.cluster.nodes[node].kill_daemon()
            self.down[node] = what
        elif what == "controller" and not self.down:
            self.note(what)
            self.cluster.controller.kill_daemon(signal.SIGTERM)  # KILL would lose what it has not written yet
            self.down["controller"] = what
        elif what == "supervisor" and (found := self.supervisors(run)):
            self.note(what, run)
            for each in found:
                processes.send(each, signal.SIGKILL)
        elif what in ("requeue", "scancel") and job:
            self.note(what, run)
            words = ("scontrol", "requeue", job) if what == "requeue" else ("scancel", job)
            self.cluster.ask(*words, check=False)
        elif what == "stop":
            self.stop(run)

    def stop(self, run: Run) -> None:
        self.note("stop", run)
        with self.agent() as agent:
            try:
                agent.call("stop", {"run_id": run.run_id, "grace": self.chance.choice([0.0, 2.0])})
            except GpurunError as error:
                self.note(f"refused: {error}", run)
                assert self.down, error

    def repair(self) -> None:
        """What is away comes back, sooner or later."""
        for name, what in list(self.down.items()):
            if what == "power":
                self.cluster.start_node(name)
            elif what == "slurmd":
                self.cluster.nodes[name].start_daemon()
            else:
                self.cluster.controller.start_daemon()
            del self.down[name]
            self.note("back")

    def pass_time(self) -> None:
        """The two minutes of Slurm, the minute of a dead heartbeat, the five of an absence: twenty seconds at a time."""
        steps = {line for _, _, line in self.on_nodes() if line.startswith("slurmstepd: ")}
        listed = self.cluster.ask("squeue", "-h", "-o", "%A %T %r", check=False)
        for line in listed.splitlines():
            number, _, rest = line.partition(" ")
            due = time.monotonic() - self.hurried.get(number, 0.0) > 5
            if rest == "PENDING BeginTime" and due and f"slurmstepd: [{number}.batch]" not in steps:
                self.hurried[number] = time.monotonic()
                self.cluster.ask("scontrol", "update", f"jobid={number}", BEGIN, check=False)
        for run in self.runs:
            notes = (
                ["absent", "ended"]
                if self.supervisors(run) and self.payloads(run)
                else ["absent", "ended", "heartbeat"]
            )
            for name in notes:
                path = Path(self.paths.run(run.run_id).folder) / "slurm" / name
                with contextlib.suppress(FileNotFoundError):
                    before = path.stat().st_mtime
                    os.utime(path, (before - 20, before - 20))

    # What must hold

    def look(self) -> None:
        """The status of every run, then whether its payload lives."""
        with self.agent() as agent:
            said = {run.run_id: status(agent, run.run_id) for run in self.runs}
        for run in self.runs:
            answer = said[run.run_id]
            alive = self.payloads(run)
            assert len(alive) <= 1, (run, alive)
            if answer["phase"] == "finished":
                assert not alive, (run, answer, alive)
                over = (answer["outcome"], answer["cause"])
                assert run.over in (None, over), (run, run.over, over)
                if run.over is None:
                    self.note(f"over: {over}", run)
                run.over = over
            else:
                assert run.over is None, (run, answer)

    def judge(self) -> None:
        """What the payloads have written, when everything is over."""
        everything = lives(self.truth)
        for run in self.runs:
            mine = [life for life in everything if life.name == run.run_id]
            for one, other in itertools.combinations(mine, 2):
                assert not at_the_same_time(one, other), (one, other)
            self._numbers(run, mine)
            self._outcome(run, mine)
        for one, other in itertools.combinations(everything, 2):
            shared = set(one.gpus.split(",")) & set(other.gpus.split(","))
            assert one.node != other.node or not shared or not at_the_same_time(one, other), (one, other)

    def _numbers(self, run: Run, mine: list[Life]) -> None:
        reached: dict[int, int] = {}
        for life in mine:
            assert life.key == SECRET
            assert life.first == 0 or life.first in reached, (run, life)
            assert life.first % 5 == 0 or life.resumed == f"models/step-{life.first:06d}", (run, life)
            reached.update(life.steps)
        whole = straight(STEPS)
        assert reached == {step: whole[step] for step in range(1, len(reached) + 1)}, run

    def _outcome(self, run: Run, mine: list[Life]) -> None:
        assert run.over is not None
        outcome, cause = run.over
        if outcome == "succeeded":
            # The last life may find all of the work done: the power failed after the last step, before that was recorded.
            assert mine and mine[-1].ended and any(STEPS in life.steps for life in mine), run
        allowed = {
            "succeeded": True,
            "cancelled": run.happened & {"stop", "scancel"},
            "interrupted": run.happened & {"power", "requeue"},
        }
        allowed["lost"] = run.happened & {"supervisor"}
        allowed["failed"] = run.happened & {"supervisor"}
        assert allowed.get(outcome), (run, outcome, cause)
        harmless = not run.happened & {"stop", "scancel", "supervisor", "power", "requeue"}
        assert outcome == "succeeded" or not harmless, run

    def secrets(self) -> None:
        """A supervisor that was killed leaves them in its node's memory, where the next one finds them."""
        wait_until(
            lambda: not any(map(self.supervisors, self.runs))
        )  # a run is over a moment before its supervisor has ended
        assert not files_with(SECRET, str(self.home)), "on the shared disk"
        memory = {name: f"/proc/{node.first()}/root/dev/shm" for name, node in self.cluster.nodes.items()}
        left = {name: path for name, path in memory.items() if files_with(SECRET, path)}
        assert not left or any("supervisor" in run.happened for run in self.runs), left
        with self.agent() as agent:
            for name in left:
                run = Run(run_id("after"), requeue=False)
                launch(agent, ["true"], run.run_id, slurm={"nodelist": name})
                until_finished(agent, run.run_id)
        assert not files_with(SECRET, *memory.values())


def files_with(text: str, *folders: str) -> list[str]:
    return subprocess.run(["grep", "-rlaF", text, *folders], capture_output=True, text=True).stdout.split()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One for each history: Slurm 22.05 may count a job that was cancelled while its node came back as allocated for ever."""
    with running_cluster() as started:
        yield started


@trials("slurm", quick=1, full=40)
def test_whatever_happens_to_a_slurm_run_it_lives_once_and_is_told_truly(
    chance: random.Random, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.await_idle()
    trial = Trial(chance, cluster, tmp_path)
    try:
        trial.submit()
        for _ in range(chance.randint(3, 8)):
            trial.happen()
            if chance.random() < 0.6:
                trial.repair()
            if "controller" not in trial.down:
                trial.pass_time()
            trial.look()
        trial.repair()

        def all_over() -> bool:
            trial.pass_time()
            trial.look()
            return all(run.over for run in trial.runs)

        wait_until(all_over, limit=60, every=0.3)
        trial.judge()
        trial.secrets()
    except BaseException:
        print("\n".join([*trial.history, *map(str, trial.runs), *map(str, lives(trial.truth))]))
        print(cluster.ask("squeue", "-t", "all", check=False), *trial.on_nodes(), cluster.logs(), sep="\n")
        raise
    finally:
        trial.repair()
        for job in cluster.ask("squeue", "-h", "-o", "%A", check=False).split():
            cluster.ask("scancel", "--full", "-s", "KILL", job, check=False)
            cluster.ask("scancel", job, check=False)
        wait_until(lambda: cluster.ask("squeue", "-h", "-o", "%A", check=False) == "")
        (cluster.commands / "squeue").unlink()
