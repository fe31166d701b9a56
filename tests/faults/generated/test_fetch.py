"""Whatever interrupts a fetch, and whatever the run does meanwhile: a file under its final name here was complete on the box once,
nothing of the user's own is overwritten, and the next fetch that is left alone brings everything.

The box is the embedded one behind a link that can be cut; gpurun is the command itself, with any rsync that is here.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote_payload.agent.box import locks
from remote_payload.agent.run import slot
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord
from runner import store
from runner.domain import places
from runner.domain.job import Job
from runner.domain.run import Run
from tests.support.box import Box
from tests.support.cli import Gpurun
from tests.support.proxy import Proxy
from tests.support.rsyncs import available, path_with
from tests.support.trials import trials

ENOUGH = 40  # trials after which every state must have been reached
OWN = b"the user's own"


class Payload:
    """What a training run does in ``outputs/``, and every content that was complete under a name there at one time."""

    def __init__(self, outputs: Path, chance: random.Random) -> None:
        self.outputs, self.chance = outputs, chance
        self.complete: dict[str, set[str]] = {}  # path → sha256 of each version
        self.logs: dict[str, bytes] = {}
        self.step = 0
        outputs.mkdir(parents=True)

    def checkpoint(self) -> None:
        """A folder with a manifest, renamed into place."""
        self.step += 1
        self._place(f"checkpoints/step-{self.step:03d}")

    def replace(self) -> None:
        """The best model again: another content under the same names."""
        self._place("models/best")

    def prune(self) -> None:
        for old in sorted(self.outputs.glob("checkpoints/step-*"))[:-2]:
            shutil.rmtree(old)

    def log(self) -> None:
        name = self.chance.choice(["logs/train.jsonl", "logs/events.out.tfevents.1"])
        more = self.chance.randbytes(self.chance.choice([200, 200_000]))
        self.logs[name] = self.logs.get(name, b"") + more
        (self.outputs / "logs").mkdir(exist_ok=True)
        with open(self.outputs / name, "ab") as file:
            file.write(more)

    def anything(self) -> None:
        self.chance.choice([self.checkpoint, self.replace, self.prune, self.log])()

    def may_be_here(self, path: str, content: bytes) -> bool:
        if path in self.logs:
            return self.logs[path].startswith(content)
        return hashlib.sha256(content).hexdigest() in self.complete.get(path, ())

    def now(self) -> dict[str, bytes]:
        return {
            str(each.relative_to(self.outputs)): each.read_bytes() for each in self.outputs.rglob("*") if each.is_file()
        }

    def _place(self, name: str) -> None:
        final = self.outputs / name
        beside = final.with_name(f"{final.name}.tmp")
        beside.mkdir(parents=True)
        listed = []
        for file in ("config.json", "model.safetensors", "deep/optimizer.bin"):
            content = self.chance.randbytes(self.chance.choice([0, 500, 70_000, 300_000]))
            (beside / file).parent.mkdir(exist_ok=True)
            (beside / file).write_bytes(content)
            os.utime(beside / file, (1_700_000_000, 1_700_000_000))  # time and often size say nothing
            listed.append({"path": file, "size": len(content)})
            self._remember(f"{name}/{file}", content)
        note = json.dumps({"files": listed, "n": self.chance.random()}).encode()
        (beside / "manifest.json").write_bytes(note)
        self._remember(f"{name}/manifest.json", note)
        if final.exists():
            final.rename(final.with_name(f"{final.name}.old-1"))
        beside.rename(final)
        shutil.rmtree(final.with_name(f"{final.name}.old-1"), ignore_errors=True)

    def _remember(self, path: str, content: bytes) -> None:
        self.complete.setdefault(path, set()).add(hashlib.sha256(content).hexdigest())


@dataclass
class World:
    """A laptop and a box, and the link between them."""

    gpurun: Gpurun
    box: Box
    link: Proxy
    reached: Counter[str] = field(default_factory=Counter)
    trials: int = 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    gpurun = Gpurun(folder / "gpurun-home", {"HF_HOME": str(folder / "hf-home")})
    box = Box(gpurun)
    with Proxy(box.port) as link:
        made = World(gpurun, box, link)
        yield made
    box.local.stop()
    if made.trials >= ENOUGH:
        wanted = {
            "cut",
            "killed",
            "interrupted",
            "begun",
            "gone on",
            "in the way",
            "while it trains",
            "an earlier version",
        }
        assert wanted <= made.reached.keys(), f"never reached: {wanted - made.reached.keys()} of {made.reached}"


class Trial:
    """One run on the box, one folder here, and what was done with them."""

    def __init__(self, world: World, chance: random.Random, folder: Path, number: int) -> None:
        self.world, self.chance, self.folder = world, chance, folder
        self.history: list[str] = []
        self.began = time.monotonic()
        self.into = folder / "home"
        self.own: dict[Path, bytes] = {}
        self.kind = chance.choice(available())
        self.run = BoxPaths(str(world.box.root)).run(f"trial-20260102-{number:06d}-{chance.randrange(1 << 16):04x}")
        self.payload = Payload(Path(self.run.outputs), chance)
        held = locks.take_run(self.run)
        assert held is not None
        self.held: int | None = held
        slot.allocate(self.run)
        Path(self.run.log).write_text("")
        job = Job("trial", outputs=("models",)).at(Path("/"), Path("job.yaml"))
        record = Run(self.run.run_id, job, "", time.time())
        record.host, record.root = world.box.address(world.link.port), str(world.box.root)
        record.attempted = record.launched = True
        store.create(record)
        self.payload.checkpoint()
        self.say(f"rsync here: {self.kind}")

    def say(self, what: str) -> None:
        self.history.append(f"{time.monotonic() - self.began:.1f} s: {what}")

    def told(self) -> str:
        return "\n".join(["", *(f"  {number}. {what}" for number, what in enumerate(self.history)), ""])

    # What can happen.

    def train(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            self.payload.anything()
        self.say("the run wrote")

    def fetch_in_peace(self) -> None:
        self.fetch("in peace", lambda fetching: None)

    def fetch_that_is_cut(self) -> None:
        how = self.chance.choice(["reset", "close"])
        after = self.chance.choice([20_000, 100_000, 600_000])
        self.world.link.cut_after(self.chance.randint(1, after), "to client", how)  # type: ignore[arg-type]
        self.fetch("cut", lambda fetching: None)

    def fetch_that_is_ended(self) -> None:
        number = self.chance.choice([signal.SIGKILL, signal.SIGINT])
        staged, wait = self.chance.random() < 0.6, self.chance.uniform(0, 0.6)

        def end(fetching: subprocess.Popen[str]) -> None:
            while staged and fetching.poll() is None and not (self.into / ".gpurun-staging").exists():
                time.sleep(0.005)
            time.sleep(wait)
            fetching.send_signal(number)

        self.fetch("killed" if number == signal.SIGKILL else "interrupted", end)

    def put_a_file_of_ones_own(self) -> None:
        names = sorted(self.payload.now())
        name = self.chance.choice([*names, "notes.txt", "models", "checkpoints/step-001", "logs"])
        path = self.into / name
        if os.path.lexists(path) or any(parent.is_file() for parent in path.parents):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(OWN)
        self.own[path] = OWN
        self.say(f"the user put a file of their own at {name}")

    def end_the_run(self) -> None:
        if self.held is not None:
            slot.write(self.run, ExitRecord("exit", 0, time.time()))
            os.close(self.held)
            self.held = None
            self.say("the run ended")

    def step(self) -> None:
        acts = [
            self.train, self.fetch_in_peace, self.fetch_that_is_cut, self.fetch_that_is_cut, self.fetch_that_is_ended,
            self.fetch_that_is_ended, self.put_a_file_of_ones_own,
        ]  # fmt: skip
        self.chance.choice(acts)()

    # How it is done.

    def fetch(self, how: str, disturb: Callable[[subprocess.Popen[str]], None]) -> int:
        gpurun = self.world.gpurun
        gpurun.env["PATH"] = path_with(self.kind, self.folder.parent / f"bin-{self.kind}")
        busy = self.held is not None and self.chance.random() < 0.4
        before, over = self.begun(), threading.Event()
        writing = threading.Thread(target=self.write_until, args=(over,))
        fetching = gpurun.enter("fetch", self.run.run_id, "--into", str(self.into))
        if busy:
            writing.start()
        disturb(fetching)
        _, said = fetching.communicate(timeout=120)
        over.set()
        if busy:
            writing.join()
        self.world.link.lanes["to client"].left = None
        self.say(
            f"fetch ({how}{', while the run writes' if busy else ''}) ended with {fetching.returncode}: {said[-400:]!r}"
        )
        assert "Traceback" not in said and fetching.returncode in (0, 3, 4, 6, 130, -2, -9), self.told()
        self.note(how, fetching.returncode, said, before, busy)
        self.check()
        return fetching.returncode

    def write_until(self, over: threading.Event) -> None:
        while not over.wait(0.15):
            self.payload.anything()

    def begun(self) -> bool:
        """Whether a file has begun to arrive."""
        return any(
            each.is_file() and each.stat().st_size for each in (self.into / ".gpurun-staging/outputs").rglob("*")
        )

    def note(self, how: str, code: int, said: str, before: bool, busy: bool) -> None:
        reached = self.world.reached
        reached[how] += how != "cut" or "going on" in said or "trying again" in said or code in (3, 4)
        reached["begun"] += self.begun()
        reached["gone on"] += before and code == 0
        reached["in the way"] += "no fetch put" in said
        reached["while it trains"] += busy and code == 0
        reached["an earlier version"] += (
            code == 0 and len(self.payload.complete.get("models/best/model.safetensors", ())) > 1
        )
        for name in [name for name, times in reached.items() if not times]:
            del reached[name]

    def check(self) -> None:
        for path in self.into.rglob("*"):
            name = str(path.relative_to(self.into))
            if name.startswith(".gpurun") or not path.is_file() or path in self.own:
                continue
            assert self.payload.may_be_here(name, path.read_bytes()), (
                f"{name} was never complete on the box{self.told()}"
            )
        for path, content in self.own.items():
            assert path.is_file() and path.read_bytes() == content, f"{path} is no longer the user's own{self.told()}"

    def finish(self) -> None:
        """What is in the way is moved away; the next fetch brings everything."""
        wanted = self.payload.now()
        used = {self.into / name for name in wanted} | {
            parent for name in wanted for parent in (self.into / name).parents
        }
        for path in [path for path in self.own if path in used]:
            path.unlink()
            del self.own[path]
        self.say("what was in the way is moved away")
        assert self.fetch("in peace", lambda fetching: None) == 0, self.told()
        here = {name: (self.into / name).read_bytes() for name in wanted if (self.into / name).is_file()}
        assert here == wanted, f"not as on the box: {sorted(set(wanted) - set(here))}{self.told()}"
        hidden = {path.name for path in self.into.glob(".*") if path not in self.own}
        assert hidden <= {".gpurun-fetched.json"}, f"{hidden} were left{self.told()}"
        assert not (self.into / ".gpurun-staging").exists(), self.told()
        receipt = json.loads((self.into / ".gpurun-fetched.json").read_text())
        for name, content in wanted.items():
            assert receipt[name][2] == hashlib.sha256(content).hexdigest() and len(receipt[name]) == 3, self.told()


@trials("fetch", quick=3, full=150)
def test_what_is_home_was_complete_and_the_next_fetch_brings_the_rest(
    seed: str, chance: random.Random, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(world.gpurun.home))
    world.trials += 1
    world.link.set(rate=chance.choice([2e6, 5e6, 30e6]))
    trial = Trial(world, chance, tmp_path, world.trials)
    try:
        for _ in range(chance.randint(1, 3)):
            trial.step()
        trial.end_the_run()
        trial.finish()
    finally:
        trial.end_the_run()
        shutil.rmtree(trial.run.folder, ignore_errors=True)
        store.discard(trial.run.run_id)
        assert places.run_folder(trial.run.run_id).exists() is False
