"""Twenty runs on two boxes with four GPUs each, while things go wrong: one run crashes, one GPU is broken, one supervisor is killed, one
box is restarted. What must hold, by what the payloads wrote of themselves while they lived:

- no GPU ever has two living payloads;
- no GPU is idle for longer than three seconds while a run of its box waits, but for a GPU that was set aside;
- runs are given their GPUs in the order in which they were submitted;
- the broken GPU fails two runs and no more;
- in the end each run has ended well, or its end has a name that fits what befell it.

Each box is a machine of its own (process ids, /dev/shm), GPUs are a file; all else is real.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.boxes.queued_site import Site
from tests.support.trials import trials

RUNS = 20
IDLE_LIMIT = 3.0  # seconds, without those in which the supervisor that had to act had no core
LIMIT = 120.0  # seconds for all runs of a trial


@dataclass
class Trial:
    chance: random.Random
    sites: list[Site]
    history: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.history.append(f"{time.monotonic():.2f} {what}")

    def submit(self) -> None:
        """Ten runs on each box, one after the other; both boxes at once. One of the twenty crashes."""
        crashing = self.chance.randrange(RUNS)

        def fill(site: Site, numbers: range) -> None:
            with site.machine.agent() as agent:
                for number in numbers:
                    site.submit(agent, f"r{number}", 1 if number == crashing else 0)

        threads = [threading.Thread(target=fill, args=(site, range(n, RUNS, 2))) for n, site in enumerate(self.sites)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.look()
        self.note(f"submitted; r{crashing} crashes")

    def look(self) -> dict[str, int]:
        """One look at both boxes; the supervisors by run, with their pids on this machine."""
        found = {}
        for pid, process in processes.scan().items():
            *_, verb, run = ["", "", *processes.command(pid).split()]
            if verb == "supervise" and processes.command(process.parent) != processes.command(
                pid
            ):  # no payload about to start
                found[run] = pid
        for site in self.sites:
            site.look()
            site.measure({each.run.run_id: found[each.run.run_id] for each in site.runs if each.run.run_id in found})
            assert not site.problem, self.said(site.problem)
        time.sleep(0.05)
        return found

    def said(self, end: object) -> str:
        words = [f"box {n}: {' '.join(site.gpus)}\n{site.words.read_text()}" for n, site in enumerate(self.sites)]
        runs = [f"{each.name} {each.run.run_id} {each.befell}" for site in self.sites for each in site.runs]
        return "\n  ".join(["history:", *self.history, *runs, *words, str(end)])


def play(trial: Trial) -> None:
    trial.submit()
    deadline = time.monotonic() + LIMIT
    things = trial.chance.sample(["supervisor", "restart"], 2)
    moments = sorted(time.monotonic() + trial.chance.uniform(0.0, 2.5) for _ in things)
    while things or not all(site.over() for site in trial.sites):
        supervisors = trial.look()
        assert time.monotonic() < deadline, trial.said("not all runs came to an end")
        if things and time.monotonic() > moments[0]:
            busy = [site for site in trial.sites if site.is_busy()]
            if not busy and not all(site.over() for site in trial.sites):
                continue
            moments.pop(0)
            site = trial.chance.choice(busy or trial.sites)
            if things.pop(0) == "restart":
                trial.note(f"box {trial.sites.index(site)} is restarted")
                site.restart()
            else:
                trial.note(f"supervisor of {site.kill_a_supervisor(supervisors) or 'nobody'} killed")
    for site in trial.sites:
        check_gpus(trial, site)
        check_idle(trial, site)
        check_ends(trial, site)


def check_gpus(trial: Trial, site: Site) -> None:
    lives = sorted(site.lives(), key=lambda life: life.begin)
    for gpu in site.gpus:
        mine = [life for life in lives if life.gpu == gpu]
        for earlier, later in itertools.pairwise(mine):
            assert earlier.end < later.begin, trial.said(f"two on {gpu}: {earlier} {later}")


def check_idle(trial: Trial, site: Site) -> None:
    """Each gap between two payloads on a GPU, less the time in which the box was down, nobody waited, or a supervisor had no core."""
    for gpu in site.gpus:
        mine = sorted((life for life in site.lives() if life.gpu == gpu), key=lambda life: life.begin)
        gaps = [(earlier.end, later.begin) for earlier, later in itertools.pairwise(mine)]
        gaps += [(mine[-1].end, max(end for _, end in site.waits()))] if mine else []
        for begin, end in gaps if gpu != site.broken else []:
            idle = longest_wait(site, begin, end)
            assert idle - lost(site, begin, end) < IDLE_LIMIT, trial.said(
                f"{gpu} was idle for {idle:.1f} s from {begin}"
            )


def longest_wait(site: Site, begin: float, end: float) -> float:
    """The longest time between ``begin`` and ``end`` in which without a pause a run waited and the box was up."""
    waits = site.waits()
    marks = sorted({begin, end, *(each for pair in (*site.down, *waits) for each in pair)})
    longest = current = 0.0
    for earlier, later in itertools.pairwise(marks):
        middle = (earlier + later) / 2
        waited = any(a < middle < b for a, b in waits)
        is_down = any(a < middle < b for a, b in site.down)
        current = current + later - earlier if begin < middle < end and waited and not is_down else 0.0
        longest = max(longest, current)
    return longest


def lost(site: Site, begin: float, end: float) -> float:
    """Seconds between the two for which the supervisor that went without a core for longest did."""
    worst = 0.0
    for run in {run for _, run, _ in site.starved}:
        seen = [waited for at, each, waited in site.starved if each == run and begin - 1 < at < end + 1]
        worst = max(worst, seen[-1] - seen[0]) if seen else worst
    return worst


def check_ends(trial: Trial, site: Site) -> None:
    """Each run ended well or by what befell it, and the broken GPU failed no third run between two starts of its box."""
    broken = 0
    with site.machine.agent() as agent:
        wait_until(lambda: all(each["phase"] == "finished" for each in agent.call("status", {})["runs"]))
        for each in site.runs:
            (status,) = agent.call("status", {"run_ids": [each.run.run_id]})["runs"]
            broken += status["cause"] == "gpu_broken"
            named = how_it_ended(status)
            expected = {"succeeded", "failed gpu_broken"} if not each.code else {"failed exit 1", "failed gpu_broken"}
            if each.befell:
                expected |= {"lost vanished", "lost not_started", "lost gpu_broken"}
            assert named in expected, trial.said(f"{each.name} ended as {named}")
    assert broken <= 2 * (1 + len(site.down)), trial.said(f"{broken} runs were given the broken GPU")


def how_it_ended(status: dict[str, Any]) -> str:
    return "succeeded" if status["outcome"] == "succeeded" else f"{status['outcome']} {status['cause']}"


@pytest.fixture
def trial(chance: random.Random, tmp_path: Path) -> Iterator[Trial]:
    broken = chance.randrange(2)
    made = Trial(chance, [Site(tmp_path / f"box{n}", chance, n == broken) for n in range(2)])
    try:
        yield made
    finally:
        for site in made.sites:
            site.machine.kill()


@pytest.mark.stand_in
@trials("sweep-queue", quick=1, full=200)
def test_twenty_runs_on_two_boxes_come_to_their_ends_and_no_gpu_is_shared_or_idle(trial: Trial) -> None:
    play(trial)
