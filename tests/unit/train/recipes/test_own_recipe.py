"""A recipe of the user's own (jobs/distil/recipe.py) has typed settings, checkpoints, resume and a model to load, like gpurun's."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_payload.recipes.own import body
from remote_payload.settings import settings_class
from remote_payload.settings.own import RecipeError, read_declarations
from remote_payload.train.data.packing import IGNORED, Document
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.causal_files import load_causal
from remote_payload.train.state.checkpoint import checkpoints_in
from remote_payload.train.tasks.packed_task import collate
from tests.support.models.language_data import ROOT, conversations, job_settings, write_lines
from tests.support.models.recipe_process import environment
from tests.support.models.tiny_models import tiny_model

EXAMPLE = ROOT / "jobs" / "distil" / "recipe.py"
SHORT = {"max_steps": 4, "max_length": 64, "batch": {"size": 8}, "generation": {"examples": 0, "base": False}}
SHORT |= {"checkpoint": {"every_steps": 2}, "evaluation": {"every_steps": 2}}


def run_example(folder: Path, settings: dict[str, Any], resume: str | None = None) -> subprocess.CompletedProcess[str]:
    """Starts the recipe as gpurun does, with ``folder/code`` as the job's code."""
    shutil.copytree(EXAMPLE.parent, folder / "code", dirs_exist_ok=True)
    (folder / "outputs").mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps({"name": "distil", "recipe": "./recipe.py", "settings": settings}))
    command = [sys.executable, "-m", "remote_payload.recipes.own"]
    return subprocess.run(
        command, cwd=folder / "code", env=environment(folder, resume), capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> Path:
    folder = tmp_path_factory.mktemp("distil") / "distil-20260102-142030-7f3a"
    folder.mkdir()
    data = write_lines(folder.parent / "chat.jsonl", conversations(40))
    models = {"model": str(tiny_folder("qwen2")), "teacher": str(tiny_folder("qwen2"))}
    settings = job_settings("distil", **models, train=str(data), **SHORT)
    first = run_example(folder, settings)
    assert first.returncode == 0, first.stderr
    again = run_example(folder, {**settings, "max_steps": 6}, resume="auto")
    assert again.returncode == 0, again.stderr
    return folder


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_it_leaves_a_model_with_reference_predictions(run_folder: Path) -> None:
    best = run_folder / "outputs" / "models" / "best"
    network, tokenizer = load_causal(best)
    assert (best / "smoke" / "expected.safetensors").is_file() and tokenizer.chat_template
    assert json.loads((best / "gpurun.json").read_text())["recipe"] == "./recipe.py"
    assert {"loss", "perplexity", "token_accuracy"} <= set(json.loads((best / "metrics.json").read_text()))
    assert network.config.model_type == "qwen2"


def test_it_goes_on_from_its_checkpoint(run_folder: Path) -> None:
    steps = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in steps if event["type"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert checkpoints_in(run_folder / "outputs" / "checkpoints")[-1].path.name == "step-000006"


def test_the_loss_is_the_distance_from_the_teacher(run_folder: Path) -> None:
    """Student and teacher begin as the same model: nothing is to be learnt, while its cross-entropy is that of a random model."""
    events = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["type"] == "step"]
    assert losses[0] < 1e-3 and all(torch.isfinite(torch.tensor(losses)))


def test_its_settings_are_read_without_importing_it(tmp_path: Path) -> None:
    program = (
        "import sys; from remote_payload.settings import settings_class\n"
        "settings_class('./recipe.py', sys.argv[1]); print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLE.parent)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "False"
    settings = settings_class("./recipe.py", str(EXAMPLE.parent))(model="m", train="t")
    assert settings.temperature == 2.0 and settings.batch.size >= 1


BROKEN = {
    "def f(:\n": ("it is not Python", 1),
    "x = 1\n": ("no dataclass Settings", 0),
    "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    x: int = 1\nMETRICS = {'loss': False}\n": (
        "Settings has no batch",
        0,
    ),
    "from remote_payload.settings.sft import METRICS, SftSettings as Settings\nMETRICS = {'loss': 1}\n": (
        "there is no METRICS",
        0,
    ),
    "import torch\nfrom dataclasses import dataclass\nfrom remote_payload.settings.sft import METRICS, SftSettings\n"
    "@dataclass\nclass Settings(SftSettings):\n    x: int = torch.tensor(1)\n": ("NameError", 5),
}


@pytest.mark.parametrize("source", BROKEN, ids=lambda text: text[:20])
def test_what_is_wrong_with_a_recipe_file_is_said_with_its_line(source: str, tmp_path: Path) -> None:
    words, line = BROKEN[source]
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(RecipeError, match=words) as caught:
        read_declarations("own.py", str(tmp_path))
    assert caught.value.line == line


@pytest.mark.parametrize("path", ["../own.py", "/tmp/own.py", "./missing.py"])
def test_a_recipe_lies_in_the_code_folder(path: str, tmp_path: Path) -> None:
    (tmp_path.parent / "own.py").write_text("x = 1\n")
    with pytest.raises(RecipeError):
        read_declarations(path, str(tmp_path))


def test_a_recipe_without_main_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("x = 1\n")
    with pytest.raises(Exception, match=r"no function main\(run\)"):
        body(str(tmp_path / "own.py"))


def test_a_loss_that_knows_nothing_of_the_counted_positions_gives_what_the_example_does() -> None:
    """Recipes written before batches had them take out the targets by name, and give the models everything else."""
    student, teacher = (CausalLoss(tiny_model(name)) for name in ("qwen2", "llama"))
    for each in (student, teacher):
        each.network.set_attn_implementation(ATTENTION)
    draw = random.Random(5)
    lengths = [draw.randint(2, 20) for _ in range(6)]
    documents = [
        Document(draw.choices(range(4, 380), k=length), [draw.random() < 0.6 for _ in range(length)])
        for length in lengths
    ]
    batch = collate(documents)
    targets = batch.tensors["targets"]
    inputs = {name: value for name, value in batch.tensors.items() if name != "targets"}
    answers = targets != IGNORED
    for model in (student, teacher):
        before = model.network(**inputs, use_cache=False).logits[answers]
        torch.testing.assert_close(model.logits(**batch.tensors), before)
    old, new = (student(**{name: batch.tensors[name] for name in names}) for names in (
        ("input_ids", "targets", "position_ids", "cu_seq_lens_q"), batch.tensors,
    ))  # fmt: skip
    assert all(torch.equal(one, other) for one, other in zip(old, new, strict=True))
