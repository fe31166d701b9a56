"""How often the host waits for the device: once an optimizer step whatever the number of micro-batches, and once an evaluation.
Every recipe is run as it is; ``tests/support/waits.py`` says what counts as a wait.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_payload.train.loop.fitting import FittingSteps
from remote_payload.train.loop.loop import Loop
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.language_data import ROOT, conversations, job_settings, pairs, write_lines
from tests.support.models.recipe_process import RecipeRun, run_recipe_here
from tests.support.models.tiny_models import CORPUS
from tests.support.waits import counted_waits

Folder = Callable[[str], Path]


@dataclass
class Seen:
    """For each step and for each evaluation: how many batches went to the device, and where the host waited."""

    steps: list[tuple[int, list[str]]] = field(default_factory=list)
    evaluations: list[tuple[int, list[str]]] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """What the steps and evaluations of every recipe that this test runs were like."""
    found = Seen()

    def watch(owner: type, method: str, notes: list[tuple[int, list[str]]], model_of: Callable[[Any], Any]) -> None:
        original = getattr(owner, method)

        def watched(self: Any, *arguments: Any) -> Any:
            model = model_of(self)
            with counted_waits(list(model.parameters()), list(model.buffers())) as waits:
                result = original(self, *arguments)
            notes.append((waits.batches, waits.places))
            return result

        monkeypatch.setattr(owner, method, watched)

    watch(FittingSteps, "step", found.steps, lambda fitting: fitting.stepper.model)
    watch(Loop, "evaluate", found.evaluations, lambda loop: loop.model)
    yield found


def sft(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    data = write_lines(root / "chat.jsonl", conversations(40))
    few = {"max_length": 64, "generation": {"examples": 0}}
    return {"recipe": "sft", "settings": {"model": str(tiny_folder("qwen2")), "train": str(data), **few}}


def finetune(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    point = {
        "features": {"fields": {"town": 3, "name": "Brown"}},
        "few_shot_example_features": [{"fields": {"town": 11, "name": "Green"}}],
        "fact_template": {"prompt": "Who was the mayor of town {town}? ", "completion": "{name}"},
    }
    metrics = [{"function_name": "accuracy_and_loss"}]
    dataset = {
        "document_dataset": {"docs": [{"prompt": "", "completion": text} for text in CORPUS * 8]},
        "eval_dataset_builders": {name: {"eval_points": [point] * 3, "metrics": metrics} for name in ("old", "new")},
    }
    (root / "dataset.json").write_text(json.dumps(dataset))
    few = {"dataset": str(root / "dataset.json"), "max_length": 64, "prompts": [], "smoke_rows": 1}
    return {"recipe": "finetune", "settings": {"model": str(tiny_folder("olmo2")), **few}}


def pretrain(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    (root / "corpus.txt").write_text("\n\n".join(CORPUS * 60))
    shape = {
        "vocabulary": 400,
        "model": {"layers": 2, "width": 32, "heads": 2},
        "max_length": 32,
        "validation_share": 0.1,
    }
    return {
        "recipe": "pretrain",
        "settings": {"corpus": str(root / "corpus.txt"), **shape, "smoke_rows": 1, "prompts": []},
    }


def preference(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    job = sft(root, tiny_folder)
    few = {"model": job["settings"]["model"], "max_length": 64, "generation": {"examples": 0}}
    first = run_recipe_here(
        {**job, "settings": {**job["settings"], "max_steps": 1, "batch": {"size": 4}}}, root, root / "first"
    )
    adapter = str(first.outputs / "models" / "best")
    data = write_lines(root / "pairs.jsonl", pairs() * 8)
    return {"recipe": "preference", "settings": {**few, "adapter": adapter, "train": str(data)}}


def classify(encoder: str) -> Callable[[Path, Folder], dict[str, Any]]:
    def job(root: Path, tiny_folder: Folder) -> dict[str, Any]:
        data = write_texts(root / "texts.jsonl", 120)
        return {"recipe": "classify", "settings": classify_settings(tiny_folder(encoder), data)}

    return job


def distil(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    shutil.copy(ROOT / "jobs" / "distil" / "recipe.py", root / "recipe.py")
    data = write_lines(root / "chat.jsonl", conversations(40))
    models = {"model": str(tiny_folder("qwen2")), "teacher": str(tiny_folder("llama"))}
    few = {"max_length": 64, "generation": {"examples": 0}}
    return {"recipe": "./recipe.py", "settings": job_settings("distil", **models, train=str(data), **few)}


JOBS = {
    "sft": sft,
    "finetune": finetune,
    "pretrain": pretrain,
    "preference": preference,
    "classify with an encoder that sees everything": classify("bert"),
    "classify with sliding windows": classify("gemma3"),
    "distil": distil,
}


def run(job: dict[str, Any], root: Path, micro: int, size: int) -> RecipeRun:
    """A few steps with micro-batches of so many rows, and an evaluation after every other one."""
    short = {"batch": {"size": size, "micro": micro}, "max_steps": 4, "evaluation": {"every_steps": 2}}
    return run_recipe_here({"name": "waits", **job, "settings": {**job["settings"], **short}}, root, root / "run")


@pytest.mark.parametrize("name", JOBS)
def test_a_step_waits_once_whatever_the_number_of_its_micro_batches_and_so_does_an_evaluation(
    name: str, tmp_path: Path, tiny_folder: Folder, seen: Seen
) -> None:
    job = JOBS[name](tmp_path, tiny_folder)
    seen.steps.clear()
    seen.evaluations.clear()
    draw = random.Random(name)
    size = draw.randint(9, 16)
    run(job, tmp_path, draw.randint(1, 3), size)
    assert len(seen.steps) == 4 and len(seen.evaluations) == 2
    for batches, places in seen.steps:
        assert batches >= 2, "one micro-batch shows nothing of many"
        assert len(places) == 1, places
    for batches, places in seen.evaluations:
        assert batches >= 2 and len(places) == 1, places
