"""The two sides' common ground: one embedded box, the real gpurun command, and what a person would type at the same sshd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.local_box import LocalBox
from tests.support.proxy import Proxy

REPOSITORY = Path(__file__).resolve().parents[2]
MEMORY, DISK = Path("/dev/shm"), Path(tempfile.gettempdir())
FIRST_LINE = 'date +%s.%N > "$MARK"'  # what a payload runs first, as a person would write it


class Bench:
    """A folder in memory (or on the disk) with a box, a project and the state of a gpurun of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "gpurun-home"
        self.project = folder / "project"
        self.mark = folder / "mark"
        self.server = LocalBox(self.home / "local-box")
        self.host = self.server.ensure()
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(" ".join(["*", *self.server.host_key]) + "\n")
        self.port = self.host.port

    # What a person types

    def ssh(self, *options: str, port: int | None = None) -> list[str]:
        """``ssh … `` up to and with the host."""
        return [*self._ssh(port), *options, f"{self.host.user}@127.0.0.1"]

    def _ssh(self, port: int | None) -> list[str]:
        return [
            "ssh", "-F", "none", "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes",
            "-i", self.host.identities[0], "-p", str(port or self.port),
        ]  # fmt: skip

    def rsync(self, *arguments: str, port: int | None = None, ssh: Sequence[str] = ()) -> list[str]:
        """``rsync -e ssh …``; a remote path is written ``box:path``."""
        there = f"{self.host.user}@127.0.0.1:"
        shell = " ".join([*self._ssh(port), *ssh])
        return ["rsync", "-e", shell, *(each.replace("box:", there, 1) for each in arguments)]

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        """To its end; raises when it fails. Pipes, since ``timeout`` without them polls."""
        done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, **options)
        if done.returncode != 0:
            raise RuntimeError(f"{argv} ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace')[-2000:]}")
        return done

    # gpurun

    def typed(self, port: int | None = None) -> str:
        """What ``--host`` is given: the line that a provider's console shows."""
        return f"ssh -p {port or self.port} {self.host.user}@127.0.0.1 -i {self.host.identities[0]}"

    def gpurun(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """The real command in a process of its own."""
        return self.run(self.gpurun_argv(*arguments), env=self.environment(), cwd=self.folder, **options)

    def gpurun_argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runner.cli", *arguments]

    def submit(self, *jobs: Path, port: int | None = None, options: Sequence[str] = ()) -> list[str]:
        """Run ids."""
        done = self.gpurun("submit", *map(str, jobs), "--host", self.typed(port), "--json", *options)
        return [run["run_id"] for run in json.loads(done.stdout)["runs"]]

    def environment(self) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HF_", "GPURUN_", "BENCH_", "PYTHON"))
        }
        return {**kept, "GPURUN_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY)}

    # Things to send

    def job(self, folder: Path, name: str = "bench", command: Sequence[str] | None = None, **fields: Any) -> Path:
        """A job file in ``folder`` whose payload notes when its first line ran."""
        folder.mkdir(parents=True, exist_ok=True)
        command = command or ["sh", "-c", FIRST_LINE]
        body = {
            "name": name, "command": list(command), "resources": {"gpus": 0}, "outputs": ["out"],
            "environment": {"variables": {"MARK": str(self.mark)}}, **fields,
        }  # fmt: skip
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps(body, indent=1))
        return file

    def first_line_after(self, began: float) -> float:
        """Seconds from ``began`` (wall clock) until the payload's first line ran; waits for it."""
        deadline = time.time() + 60
        while not (self.mark.exists() and (text := self.mark.read_text()).endswith("\n")):
            if time.time() > deadline:
                raise RuntimeError("the payload's first line did not run within a minute")
            time.sleep(0.002)
        self.mark.unlink()
        return float(text) - began


def write_tree(folder: Path, files: int, size: int, *, per_folder: int = 100, text: bool = False) -> None:
    """``files`` files of ``size`` bytes, the same every time; ``text`` compresses as source code does."""
    import random

    generator = random.Random(files * size)
    words = [bytes(generator.choices(b"abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9))) for _ in range(3000)]
    for number in range(files):
        parent = folder / f"part-{number // per_folder:04d}"
        parent.mkdir(parents=True, exist_ok=True)
        words_of_it = b" ".join(generator.choices(words, k=size // 6 + 1)) if text else b""
        content = words_of_it[:size].ljust(size, b".") if text else generator.randbytes(size)
        (parent / f"file-{number:05d}.txt").write_bytes(content)


@contextmanager
def bench(on: Path = MEMORY) -> Iterator[Bench]:
    """A bench that leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="gpurun-bench-", dir=on))
    made = Bench(folder)
    try:
        yield made
    finally:
        made.server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def link(made: Bench, rtt: float = 0.0, rate: float | None = None) -> Iterator[Proxy]:
    """A link to the box that is ``rtt`` seconds long and ``rate`` bytes a second wide."""
    with Proxy(made.port, delay=rtt / 2, rate=rate) as proxy:
        yield proxy
