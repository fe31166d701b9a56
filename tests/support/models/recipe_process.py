"""Runs a recipe as the box does: with a run's folder and environment; in a process of its own, alone or under torchrun, or here."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_payload.settings import is_own
from remote_payload.train.run import OWN, Run

ROOT = Path(__file__).parents[3]


OWN_VARIABLES = ("GPURUN_RUN_ID", "GPURUN_RUN_DIR", "GPURUN_OUTPUTS", "GPURUN_EVENTS", "GPURUN_RESUME", "HF_HOME")


@dataclass
class RecipeRun:
    """A finished process, and where the run's files lie."""

    folder: Path
    code: int
    log: str
    errors: str

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    @property
    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def losses(self) -> list[float]:
        return [event["loss"] for event in self.of_type("step")]


def environment(folder: Path, resume: str | None = None) -> dict[str, str]:
    """What a payload meets on a box, for a run in ``folder``."""
    own = {
        "GPURUN_RUN_ID": folder.name,
        "GPURUN_RUN_DIR": str(folder),
        "GPURUN_OUTPUTS": str(folder / "outputs"),
        "GPURUN_EVENTS": str(folder / "events.jsonl"),
        "HF_HOME": str(folder.parent / "cache" / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **own, **({"GPURUN_RESUME": resume} if resume else {})}


def command(module: str, processes: int = 1) -> list[str]:
    """As the agent starts it: the module, or the module under torchrun."""
    if processes == 1:
        return [sys.executable, "-m", module]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        module,
    ]


def run_recipe(
    job: dict[str, Any],
    code: Path,
    folder: Path,
    *,
    processes: int = 1,
    resume: str | None = None,
    timeout: float = 120,
) -> RecipeRun:
    """Runs ``job`` with ``code`` as its working directory, and waits for it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        command(f"remote_payload.recipes.{job['recipe']}", processes),
        cwd=code,
        env=environment(folder, resume),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return RecipeRun(folder, done.returncode, done.stdout, done.stderr)


def run_recipe_here(job: dict[str, Any], code: Path, folder: Path, *, resume: str | None = None) -> RecipeRun:
    """The same in this process, which spares the seconds that importing takes; what the recipe raises comes out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job))
    before, here = dict(os.environ), os.getcwd()
    os.environ.update({name: value for name, value in environment(folder, resume).items() if name in OWN_VARIABLES})
    os.chdir(code)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            module = OWN if is_own(job["recipe"]) else job["recipe"]
            run = Run.from_environment(module)
            importlib.import_module(f"remote_payload.recipes.{module}").main(run)
            run.telemetry.close()
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
    return RecipeRun(folder, 0, said.getvalue(), "")


def succeeded(run: RecipeRun) -> RecipeRun:
    """The run itself, or an assertion that shows what it said."""
    assert run.code == 0, f"exit {run.code}\n{run.log[-3000:]}\n{run.errors[-3000:]}"
    return run


def files_below(folder: Path) -> Iterator[str]:
    """Names of all files, relative to the folder."""
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
