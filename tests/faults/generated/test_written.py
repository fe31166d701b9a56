"""However a program writes: what the box lists as complete while it runs is, byte for byte, something that the program had completed.

Writers of six kinds run beside a box that is asked again and again: in place, under another name and renamed, slowly and closed in
between, as ``torch.save`` writes, folders of several files with and without a file at the end, folders written a second time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_payload.agent.box import locks
from remote_payload.agent.run import manifest, slot
from remote_payload.agent.run.checkpoints.of_run import list_foreign
from remote_payload.agent.run.checkpoints.rule import Rule, read_rule
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from tests.support.trials import trials

QUIET = 0.8  # seconds; a writer that only the quiet time can show pauses for at most a sixteenth of it
SHORT, LONG = QUIET / 16, QUIET * 1.5
LASTS = 4.0
Version = dict[str, str]  # path within the checkpoint ("" for a file) → sha256


class Program:
    """What a training run writes: every version that was ever complete, by the path of its file or folder."""

    def __init__(self, outputs: Path, chance: random.Random) -> None:
        self.outputs, self.chance = outputs, chance
        self.complete: dict[str, list[Version]] = {}
        self.over = threading.Event()
        self.failed: list[BaseException] = []
        self.stood_still = False  # the machine did, for longer than the quiet time: nothing can be said then
        self.done: Counter[str] = Counter()

    def kinds(self) -> list[Callable[[random.Random], None]]:
        return [self.in_place, self.renamed, self.zip_in_pieces, self.in_pieces, self.trainer, self.counted]

    def run(self, kind: Callable[[random.Random], None], seed: float) -> None:
        """Writes until the trial is over."""
        chance = random.Random(seed)
        try:
            while not self.over.is_set():
                kind(chance)
                self.done[kind.__name__] += 1
                self.pause(chance, LONG * 2)
        except BaseException as error:
            self.failed.append(error)

    def pause(self, chance: random.Random, longest: float) -> None:
        before = time.monotonic()
        self.over.wait(chance.uniform(0, longest))
        self.stood_still |= longest == SHORT and time.monotonic() - before > QUIET / 2

    # Each writer notes its version before it begins: a part of it has another digest.

    def in_place(self, chance: random.Random) -> None:
        """``open(path, "wb")``, with pauses of any length, as nanoGPT saves."""
        content = self.content(chance)
        self.note("out/state.dat", {"": content})
        with open(self.path("out/state.dat"), "wb", buffering=0) as file:
            for piece in pieces(content, chance):
                file.write(piece)
                self.pause(chance, LONG)

    def renamed(self, chance: random.Random) -> None:
        content = self.content(chance)
        self.note("out/last.ckpt", {"": content})
        with open(self.path("out/last.ckpt.tmp"), "wb", buffering=0) as file:
            for piece in pieces(content, chance):
                file.write(piece)
                self.pause(chance, SHORT)
        os.replace(self.path("out/last.ckpt.tmp"), self.path("out/last.ckpt"))

    def zip_in_pieces(self, chance: random.Random) -> None:
        """A file of torch.save that a copy tool writes: closed between its pieces for longer than the quiet time."""
        self.append_pieces("out/deep/model.pt", zipped(self.content(chance)), chance, LONG)

    def in_pieces(self, chance: random.Random) -> None:
        """A format without a visible end, closed between its pieces for less than the quiet time."""
        self.append_pieces("out/table.csv", self.content(chance), chance, SHORT)

    def append_pieces(self, path: str, content: bytes, chance: random.Random, longest: float) -> None:
        self.note(path, {"": content})
        for place, piece in enumerate(pieces(content, chance)):
            with open(self.path(path), "ab" if place else "wb") as file:
                file.write(piece)
            self.pause(chance, longest)

    def trainer(self, chance: random.Random) -> None:
        """A ``checkpoint-N``, sometimes one that is there already. The gaps before its last file may be long."""
        step = chance.randrange(3)
        names = ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"]
        self.folder(f"out/checkpoint-{step}", names, LONG, chance)

    def counted(self, chance: random.Random) -> None:
        """A folder without a file at its end, never one that is there already."""
        self.folder(f"out/step_{len(self.complete)}{chance.randrange(10**6)}", ["a.bin", "b/c.bin", "z"], SHORT, chance)

    def folder(self, name: str, files: list[str], longest: float, chance: random.Random) -> None:
        contents = {file: self.of_its_format(file, chance) for file in files}
        self.note(name, contents)
        for file, content in contents.items():
            with open(self.path(f"{name}/{file}"), "wb", buffering=0) as opened:
                for piece in pieces(content, chance):
                    self.pause(chance, LONG)
                    opened.write(piece)
            self.pause(chance, longest)

    def of_its_format(self, file: str, chance: random.Random) -> bytes:
        content = self.content(chance)
        if file.endswith(".safetensors"):
            header = json.dumps(
                {"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
            ).encode()
            return len(header).to_bytes(8, "little") + header + content
        if file.endswith(".json"):
            return json.dumps({"global_step": chance.randrange(10**9)}).encode()
        return zipped(content) if file.endswith(".pt") else content

    def content(self, chance: random.Random) -> bytes:
        return chance.randbytes(chance.choice([1, 900, 90_000]))

    def path(self, name: str) -> Path:
        path = self.outputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def note(self, name: str, contents: dict[str, bytes]) -> None:
        version = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
        self.complete.setdefault(name, []).append(version)


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data/0", content)
    return packed.getvalue()


def pieces(content: bytes, chance: random.Random) -> Iterator[bytes]:
    """The content in one to three pieces, none of them empty: nobody can see when such a one is written."""
    cuts = sorted({chance.randrange(len(content)) for _ in range(chance.randrange(3))} - {0})
    for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        yield content[begin:end]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunPaths]:
    run = BoxPaths(str(tmp_path / "root")).run("own-20260102-142030-3a41")
    os.makedirs(run.outputs)
    job = {"command": ["x"], "outputs": ["out"], "checkpoints": {"complete_when": f"{QUIET}s"}}
    Path(run.job).write_text(json.dumps(job))
    slot.allocate(run)
    lock = locks.take_run(run)
    assert lock is not None
    yield run
    locks.drop(locks.run_lock(run), lock)


@trials("written", quick=2, full=60)
def test_what_is_listed_while_it_is_written_is_what_the_program_completed(
    seed: str, chance: random.Random, run: RunPaths
) -> None:
    program = Program(Path(run.outputs), chance)
    writers = [
        threading.Thread(target=program.run, args=(kind, chance.random()))
        for kind in chance.sample(program.kinds(), chance.randint(3, 6))
    ]
    for writer in writers:
        writer.start()
    seen: Counter[str] = Counter()
    try:
        until = time.monotonic() + LASTS
        while time.monotonic() < until:
            check_manifest(run, program, seen)
            check_list(run, program)
    finally:
        program.over.set()
        for writer in writers:
            writer.join()
    assert not program.failed, program.failed
    time.sleep(QUIET * 1.5)  # it is the time itself that is tried
    check_manifest(run, program, seen)
    whole = {name for name, versions in program.complete.items() if now(run, name) in versions}
    assert whole <= set(seen), f"complete, and never listed: {whole - seen.keys()}"


def check_manifest(run: RunPaths, program: Program, seen: Counter[str]) -> None:
    """Every file that is listed has a content that was complete; the files of a folder are those of one version."""
    listed: dict[str, Version] = {}
    for file in manifest.build(run, complete=False)["files"]:
        name = next((name for name in program.complete if file["path"].startswith(name + "/")), file["path"])
        listed.setdefault(name, {})[file["path"][len(name) + 1 :]] = file["sha256"]
    for name, version in listed.items():
        if program.stood_still:
            pytest.skip("the machine stood still for longer than the quiet time")
        assert version in program.complete.get(name, []), f"{name} is listed half-written: {sorted(version)}"
        seen[name] += 1


def check_list(run: RunPaths, program: Program) -> None:
    complete, unfinished = list_foreign(run, read_rule(run), is_running=True)
    assert read_rule(run) == Rule(quiet=QUIET)
    both = {each["path"] for each in complete} & {each["path"] for each in unfinished}
    assert not both, both
    assert {each["path"] for each in (*complete, *unfinished)} <= program.complete.keys()


def now(run: RunPaths, name: str) -> Version:
    top = Path(run.outputs, name)
    files = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    return {
        "" if path == top else str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
