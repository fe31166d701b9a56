"""A box with a queue, for trials: its machine, runs whose payloads say when they live, what befalls them, and what was seen of them."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json
from remote_payload.agent.run import slot
from remote_payload.agent.wire.paths import RunPaths
from tests.support.agent import Session, launch, run_id
from tests.support.boxes.machine import Machine

GPUS = 4
LASTS = (1.0, 4.0)  # seconds that a payload takes
DEVICE_ERROR = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
PROGRAM = f"""
import os, sys, time
words, broken, name, seconds, code = sys.argv[1:]
gpu = os.environ["GPURUN_GPUS"]
def say(word):
    descriptor = os.open(words, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{{word}} {{name}} {{gpu}} {{time.monotonic():.3f}}\\n".encode())
    os.close(descriptor)
say("begin")
if gpu == broken:
    say("end")
    sys.exit("{DEVICE_ERROR}")
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    time.sleep(0.05)
    say("lives")
say("end")
sys.exit(int(code))
"""


@dataclass
class Life:
    """A payload on a GPU, from its first word to its last; seconds of the machine's monotonic clock."""

    name: str
    gpu: str
    begin: float
    end: float


@dataclass
class Submitted:
    """One of the twenty. ``run`` changes where a restart gives its place to another. ``waits`` are the times in which it waited."""

    name: str
    run: RunPaths
    code: int
    since: float
    given: bool = False
    befell: str = ""
    waits: list[tuple[float, float]] = field(default_factory=list)


class Site:
    """One box: its machine, its runs in the order in which they were submitted, and what its supervisors went without."""

    def __init__(self, folder: Path, chance: random.Random, broken: bool) -> None:
        (folder / "home").mkdir(parents=True)
        self.chance, self.words = chance, folder / "words"
        self.words.touch()
        self.gpus = [f"GPU-{os.urandom(6).hex()}" for _ in range(GPUS)]
        row = {"name": "x", "memory_total": 1 << 34, "memory_used": 0, "utilisation": 0}
        (folder / "gpus.json").write_text(
            json.dumps([{"number": n, "uuid": u, **row} for n, u in enumerate(self.gpus)])
        )
        self.broken = chance.choice(self.gpus) if broken else "none"
        self.machine = Machine(folder / "home", folder / "gpus.json")
        self.machine.start()
        self.runs: list[Submitted] = []
        self.down: list[tuple[float, float]] = []
        self.starved: list[
            tuple[float, str, float]
        ] = []  # moment, run, seconds that its supervisor has waited for a core
        self.problem = ""

    def submit(self, agent: Session, name: str, code: int) -> None:
        run = self.machine.paths.run(run_id(name))
        command = [sys.executable, "-S", "-c", PROGRAM, str(self.words), self.broken, name]
        command += [f"{self.chance.uniform(*LASTS):.2f}", str(code)]
        launch(agent, command, run.run_id, gpus=1, queue=True)
        self.runs.append(Submitted(name, run, code, time.monotonic()))

    # What is looked at while they run

    def look(self) -> None:
        """Notes who was given GPUs, and a run that was passed. Later runs are read first, so that what is said of earlier ones is newer."""
        now = time.monotonic()
        later = ""
        for each in reversed(list(self.runs)):
            mine = read_json(each.run.gpus) or {}
            was_given, over = each.given, slot.read(each.run) is not None
            each.given = was_given or bool(mine.get("given")) or slot.was_started(each.run)
            if each.given and not was_given:
                each.waits.append((each.since, now))
            if not each.given and later and not over and not each.befell:
                self.problem = self.problem or f"{later} was given a GPU before {each.name}"
            later = each.name if each.given else later

    def measure(self, supervisors: dict[str, int]) -> None:
        now = time.monotonic()
        for run, pid in supervisors.items():
            try:
                waited = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
            except (OSError, IndexError):
                continue
            self.starved.append((now, run, waited))

    def over(self) -> bool:
        return all(slot.read(each.run) is not None or each.befell for each in self.runs) and not self.living()

    def living(self) -> bool:
        """Whether a payload spoke within the last second."""
        return any(time.monotonic() - life.end < 1.0 for life in self.lives() if not self._has_ended(life.name))

    def _has_ended(self, name: str) -> bool:
        return f"end {name} " in self.words.read_text()

    def lives(self) -> list[Life]:
        """A run that a restart interrupted has two."""
        found: list[Life] = []
        last: dict[tuple[str, str], Life] = {}
        for line in self.words.read_text().splitlines():
            word, name, gpu, at = line.split()
            if word == "begin":
                last[name, gpu] = Life(name, gpu, float(at), float(at))
                found.append(last[name, gpu])
            else:
                last[name, gpu].end = float(at)
        return found

    def waits(self) -> list[tuple[float, float]]:
        """The times in which a run waited: to its payload's first word where it said one, since looks may be seconds apart."""
        lives, found = self.lives(), []
        for each in self.runs:
            for since, seen in each.waits:
                begins = [life.begin for life in lives if life.name == each.name and life.begin > since]
                found.append((since, min([seen, *begins])))
        return found

    # What befalls them

    def kill_a_supervisor(self, supervisors: dict[str, int]) -> str:
        able = [each for each in self.runs if each.run.run_id in supervisors and slot.read(each.run) is None]
        running = [each for each in able if each.given]
        if not able:
            return ""
        victim = self.chance.choice(running if running and self.chance.random() < 0.8 else able)
        victim.befell = "its supervisor was killed"
        process = processes.read(supervisors[victim.run.run_id])
        if process is not None:
            processes.send(process, 9)
        if not victim.given:
            victim.waits.append((victim.since, time.monotonic()))
        return victim.name

    def is_busy(self) -> bool:
        """Whether a run waits while another has a GPU."""
        left = [each.given for each in self.runs if slot.read(each.run) is None and not each.befell]
        return any(left) and not all(left)

    def restart(self) -> None:
        """Kills the machine, starts it again, and has it go on with what that interrupted."""
        began = time.monotonic()
        self.machine.kill()
        for each in self.runs:
            if not each.given:
                each.waits.append((each.since, began))
        self.machine.start()
        with self.machine.agent() as agent:
            seen = agent.call("recover", {})["runs"]
            wishes = [
                {"earlier": each["status"]["run_id"], "run_id": run_id("again"), "secrets": []}
                for each in seen
                if each["status"]["outcome"] == "interrupted"
            ]
            agent.call("recover", {"start": wishes, "secrets": {}})
        self.down.append((began, time.monotonic()))
        taken = {wish["earlier"]: wish["run_id"] for wish in wishes}
        order = list(taken)  # first those that ran, then those that waited
        for each in self.runs:
            if each.run.run_id in taken:
                each.run, each.befell = self.machine.paths.run(taken[each.run.run_id]), ""
                each.given, each.since = False, time.monotonic()
        again = {self.machine.paths.run(taken[earlier]).run_id: place for place, earlier in enumerate(order)}
        self.runs.sort(key=lambda each: again.get(each.run.run_id, -1))
