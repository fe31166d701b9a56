"""Small data in the formats of the language-model reports, and a recipe run on it as gpurun would start it."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from remote_payload.train.run import launch

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("Ada", "Brown", "Clara", "Dickens", "Emma", "Faraday")
SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


def write_lines(path: Path, values: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def conversations(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Brie's format: questions and answers in one voice, some with more than one turn."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        name, year = draw.choice(NAMES), draw.randint(1800, 1830)
        turns = [("user", f"When did {name} sail?"), ("assistant", f"{name} sailed in {year}, in the spring.")]
        if index % 3 == 0:
            turns += [("user", "And then?"), ("assistant", "Nobody on the quay believed it.")]
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    return rows


def extractions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """EdgeJSON's format: ``expected_output`` is an object, a list, text or a number."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        name, year = draw.choice(NAMES), draw.randint(1800, 1830)
        outputs = ({"name": name, "born": {"year": year}}, [name, {"year": year}], name, year)
        schema = SCHEMA if index % 4 == 0 else {}
        rows.append({"prompt": f"{name}, born {year}", "expected_output": outputs[index % 4], "schema": schema})
    return rows


def pairs() -> list[dict[str, Any]]:
    """Five preference pairs."""
    return [
        {"prompt": f"When did {name} sail?", "chosen": f"{name} sailed in the spring.", "rejected": "No idea."}
        for name in NAMES[:5]
    ]


def job_settings(name: str, **changes: Any) -> dict[str, Any]:
    """The settings of ``jobs/NAME.yaml`` with some replaced, as ``--set`` does."""
    job = yaml.safe_load((ROOT / "jobs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {**job["settings"], **changes}


def run_recipe(
    recipe: str, folder: Path, settings: dict[str, Any], resume: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the recipe on the CPU in a process of its own, started as gpurun starts it; ``folder`` is its run folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **_prepare(recipe, folder, settings, resume)}
    command = [sys.executable, "-m", f"remote_payload.recipes.{recipe}"]
    return subprocess.run(
        command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def run_recipe_here(recipe: str, folder: Path, settings: dict[str, Any], resume: str | None = None) -> int:
    """The same in this process (importing torch takes longer than training something tiny); gives the exit code."""
    before = dict(os.environ)
    os.environ.pop("GPURUN_RESUME", None)
    os.environ.update(_prepare(recipe, folder, settings, resume))
    try:
        launch(recipe, importlib.import_module(f"remote_payload.recipes.{recipe}").main)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _prepare(recipe: str, folder: Path, settings: dict[str, Any], resume: str | None) -> dict[str, str]:
    """The run folder with its job, and the environment that names it (ARCHITECTURE.md, "What the payload meets")."""
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps({"name": folder.name, "recipe": recipe, "settings": settings}))
    return {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "GPURUN_RUN_ID": f"{folder.name}-20260102-142030-7f3a",
        "GPURUN_RUN_DIR": str(folder),
        "GPURUN_OUTPUTS": str(folder / "outputs"),
        "GPURUN_EVENTS": str(folder / "events.jsonl"),
        **({"GPURUN_RESUME": resume} if resume else {}),
    }
