"""Whenever Ctrl-C, TERM or the end of a pipe reaches ``gpurun``, it ends soon, with the status that a shell expects, and prints nothing
that only a programmer reads.

The moments are counted from the first line of ``main``: what Python does before it is not gpurun's. What each command takes when it is
left alone is measured first, so that the moments cover all of it.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.cli import Gpurun
from tests.support.trials import trials

IGNORING = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # as a shell starts its background jobs
FOR_PROGRAMMERS = re.compile(r"Traceback|Exception ignored|KeyboardInterrupt|File \"|object at 0x|most recent call")
SOON = 10.0  # seconds; a lost interrupt shows itself in the command that never ends by itself
ENOUGH = 60  # trials after which each kind of end must have been seen
JOB = "name: waits\ncommand: [python3, main.py]\nresources: {gpus: 0}\noutputs: [out]\n"
TRAIN = """
import pathlib, time
pathlib.Path("out/a.txt").write_text("a")
print("waiting", flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.1)
"""


@dataclass
class World:
    """A laptop with one run on its embedded box; the run goes on until the end."""

    gpurun: Gpurun
    commands: dict[str, list[str]] = field(default_factory=dict)
    lengths: dict[str, float] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    trials: int = 0

    def length(self, name: str) -> float:
        """How long the command takes when it is left alone."""
        if name not in self.lengths:
            began = time.monotonic()
            process = self.gpurun.enter(*self.commands[name])
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, f"{name}: {said}"
            self.lengths[name] = time.monotonic() - began
        return self.lengths[name]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("project")
    home = tmp_path_factory.mktemp("home")
    gpurun = Gpurun(home / "gpurun-home", {"HF_HOME": str(home / "hf-home")})
    made = World(gpurun)
    (folder / "main.py").write_text(TRAIN)
    job = folder / "job.yaml"
    job.write_text(JOB)
    over = gpurun.submit(job)
    (gpurun.box_run(over) / "code" / "go").touch()
    gpurun("logs", "-f", over)
    run_id = gpurun.submit(job)
    made.commands = {
        "version": ["--version"],
        "help": ["--help"],
        "list": ["list"],
        "list --json": ["list", "--json"],
        "validate": ["validate", str(job)],
        "status": ["status", run_id],
        "logs": ["logs", run_id],
        "fetch": ["fetch", over, "--into", str(home / "fetched")],
        "logs -f": ["logs", "-f", run_id],
    }
    made.lengths["logs -f"] = 2.0  # it has no end
    try:
        yield made
    finally:
        gpurun("stop", run_id, "--grace", "1", check=None)
    if made.trials >= ENOUGH:
        wanted = {"-2", "130", "-15", "0"}
        assert wanted <= made.reached.keys(), f"never reached: {wanted - made.reached.keys()} of {made.reached}"


@trials("interrupts", quick=6, full=100)
def test_no_moment_of_an_interruption_shows_the_inside(seed: str, chance: random.Random, world: World) -> None:
    world.trials += 1
    name = chance.choice(list(world.commands))
    how = chance.choice(["interrupt"] * 6 + ["twice"] * 2 + ["terminate", "close", "ignored"])
    if name == "logs -f" and how in ("ignored", "close"):
        how = "interrupt"  # it would go on for ever
    moment = world.length(name) * chance.uniform(0, 1.1) * chance.choice([0.2, 1, 1])
    history = f"gpurun {' '.join(world.commands[name])}: {how} {moment:.3f} s after its entry"
    process = world.gpurun.enter(*world.commands[name], first=IGNORING if how == "ignored" else "")
    assert process.stdout is not None
    time.sleep(moment)
    sent = process.poll() is None
    if how == "close":
        process.stdout.close()
        process.stdout = None
    else:
        process.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGINT)
    if how == "twice":
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGINT)
    began = time.monotonic()
    try:
        out, said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"{history}: it goes on\n{process.communicate()}")
    took, code = time.monotonic() - began, process.returncode
    told = f"{history}; ended with {code} after {took:.1f} s\n--- out\n{out}\n--- err\n{said}"
    assert not FOR_PROGRAMMERS.search(f"{out}{said}"), told
    right = {"terminate": (0, -signal.SIGTERM), "close": (0,), "ignored": (0,)}.get(how, (0, 130, -signal.SIGINT))
    assert code in right, told
    assert how in ("close", "ignored") or took < SOON, told
    assert code != 130 or "Interrupted. " in said, told
    assert code != -signal.SIGINT or "Interrupted" not in said or how == "twice", told
    assert code != 0 or not sent or name != "logs -f", told
    world.reached[str(code)] += 1
