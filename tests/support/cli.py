"""The real ``gpurun`` command in a process of its own, with a state folder and an embedded box of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Says so as ``main`` returns from its own call of ``signal``, or begins to load what it runs where it needs no such call.
ENTERED = """
{first}
import _signal, os, sys
from runner.cli.main import main
def tell(frame, event, function):
    took_care = event == "c_return" and function is _signal.signal
    if took_care or event == "call" and frame.f_code.co_filename.startswith("<frozen importlib"):
        sys.setprofile(None)
        os.write(2, b"entered\\n")
sys.setprofile(tell)
sys.exit(main())
"""


@dataclass
class Gpurun:
    """Calls ``gpurun`` with its own GPURUN_HOME; ``env`` adds to the environment of every call."""

    home: Path
    env: dict[str, str]

    def __call__(
        self, *arguments: str, check: int | None = 0, cwd: Path | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Runs to the end; fails the test with both streams when the exit code is not ``check`` (None: any)."""
        done = subprocess.run(
            self.argv(*arguments),
            cwd=cwd or REPOSITORY,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if check is not None and done.returncode != check:
            pytest.fail(
                f"gpurun {' '.join(arguments)} ended with {done.returncode}, not {check}\n--- out\n{done.stdout}\n--- err\n{done.stderr}"
            )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, check: int = 0, **options: Any) -> Any:
        """The one document that ``--json`` prints."""
        return json.loads(self(*arguments, "--json", check=check, **options).stdout)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A process that runs beside the test."""
        return subprocess.Popen(
            self.argv(*arguments), cwd=REPOSITORY, env=self.environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def enter(self, *arguments: str, first: str = "") -> subprocess.Popen[str]:
        """As ``start``, but gives the process once ``main`` has taken care of Ctrl-C: an interrupt before that is Python's to answer.

        ``first`` is a line of Python that the process runs before it.
        """
        program = ENTERED.format(first=first)
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None and process.stderr.readline() == "entered\n"
        return process

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runner.cli", *arguments]

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "GPURUN_"))}
        return {**kept, "GPURUN_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1", **self.env}

    @property
    def box_root(self) -> Path:
        """``$ROOT`` of the embedded box."""
        return self.home / "local-box" / "home" / ".gpurun-box"

    def box_run(self, run_id: str) -> Path:
        return self.box_root / "runs" / run_id

    def submit(self, job: Path | str, *arguments: str, **options: Any) -> str:
        """Submits to the embedded box; the run id, also of a run that has failed by then (exit code 10)."""
        done = self("submit", str(job), "--host", "local", "--json", *arguments, check=None, **options)
        if done.returncode not in (0, 10):
            pytest.fail(f"submit ended with {done.returncode}\n--- out\n{done.stdout}\n--- err\n{done.stderr}")
        document = json.loads(done.stdout)
        run_id: str = document["runs"][0]["run_id"]
        return run_id


@pytest.fixture
def gpurun(tmp_path: Path) -> Iterator[Gpurun]:
    """A gpurun whose runs and embedded sshd end with the test."""
    command = Gpurun(tmp_path / "gpurun-home", {"HF_HOME": str(tmp_path / "hf-home")})
    yield command
    if (command.box_root / "runs").is_dir():
        for run in json.loads(command("list", "--host", "local", "--json", check=None).stdout).get("runs", []):
            if run["status"]["phase"] != "finished":
                command("stop", run["run_id"], "--grace", "0", check=None)
    command("hosts", "forget", "local", check=None)


@pytest.fixture
def job(tmp_path: Path) -> Any:
    """Writes a command job around a small Python program; gives the job file's path."""

    def write(program: str, name: str = "probe", **fields: Any) -> Path:
        folder = tmp_path / f"project-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(program)
        body = {
            "name": name,
            "command": ["python3", "main.py"],
            "resources": {"gpus": 0},
            "outputs": ["models"],
            **fields,
        }
        (folder / "job.yaml").write_text(json.dumps(body, indent=1))
        return folder / "job.yaml"

    return write
