"""A checkpoint of each recipe becomes what ``models/best`` is of the same weights, file by file; what predicts something else does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from remote_payload.train.inference.target import load_target
from runner.domain.errors import SmokeTestFailed, UserError
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.local_model.worker import export as worker
from runner.workflow.exporting.export import Export, Wanted, export
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.exported import call_instead_of_a_process
from tests.support.models.language_data import conversations, write_lines
from tests.support.models.recipe_process import run_recipe_here
from tests.support.models.smoke_models import record_fetched
from tests.support.models.tiny_models import CORPUS, save_tiny_model

OFTEN = {"every_epochs": 0.5}
QUICK = {"epochs": 1, "max_length": 64, "batch": {"size": 4}, "evaluation": OFTEN, "smoke_rows": 3}


def classify(code: Path, rank: int) -> dict[str, Any]:
    save_tiny_model("bert", code / "base")
    data = write_texts(code / "texts.jsonl", 32)
    lora = {"lora": {"rank": rank}, "optimizer": {"learning_rate": 0.01 if rank else 1e-4}}
    settings = classify_settings(
        Path("base"), data.relative_to(code), binary_threshold=1, epochs=1, smoke_rows=3, **lora
    )
    return {**settings, "evaluation": {**OFTEN, "metric": "macro_f1"}}


def sft(code: Path) -> dict[str, Any]:
    save_tiny_model("qwen2", code / "base")
    write_lines(code / "chat.jsonl", conversations(24))
    few = {"generation": {"examples": 0}, "lora": {"rank": 4}, "optimizer": {"learning_rate": 0.01}}
    return {**QUICK, **few, "model": "base", "train": "chat.jsonl"}


def finetune(code: Path) -> dict[str, Any]:
    save_tiny_model("olmo2", code / "base")
    rows = [{"prompt": "", "completion": text} for text in CORPUS]
    point = {
        "features": {"fields": {"town": "York"}},
        "few_shot_example_features": [],
        "fact_template": {"prompt": "In ", "completion": "{town}"},
    }
    sets = {"towns": {"eval_points": [point], "metrics": [{"function_name": "accuracy_and_loss"}]}}
    (code / "set.json").write_text(json.dumps({"document_dataset": {"docs": rows}, "eval_dataset_builders": sets}))
    return {**QUICK, "model": "base", "dataset": "set.json"}


def pretrain(code: Path) -> dict[str, Any]:
    (code / "corpus.txt").write_text("\n\n".join(f"In the year {year} a ship left." for year in range(1700, 1800)))
    shape = {"layers": 2, "width": 32, "heads": 2}
    steps = {"max_steps": 8, "evaluation": {"every_steps": 4}, "checkpoint": {"every_steps": 4}}
    return {
        **QUICK,
        "corpus": "corpus.txt",
        "vocabulary": 300,
        "max_length": 32,
        "validation_share": 0.2,
        "model": shape,
        **steps,
    }


RECIPES: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "classify with LoRA": ("classify", lambda code: classify(code, 4)),
    "classify": ("classify", lambda code: classify(code, 0)),
    "sft": ("sft", sft),
    "finetune": ("finetune", finetune),
    "pretrain": ("pretrain", pretrain),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run, in ``run/outputs`` what it wrote, beside its code."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            torch.set_num_threads(1)
            made[name] = tmp_path_factory.mktemp("code")
            recipe, settings = RECIPES[name]
            job = {"name": "tiny", "recipe": recipe, "settings": {"checkpoint": OFTEN} | settings(made[name])}
            run_recipe_here(job, made[name], made[name] / "run")
        return made[name]

    return get


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    call_instead_of_a_process(monkeypatch)


def of_best(outputs: Path) -> Path:
    """The checkpoint that has the weights of ``models/best``."""
    step = json.loads((outputs / "models/best/gpurun.json").read_text())["step"]
    return outputs / f"checkpoints/step-{step:06d}"


def run_in(code: Path, home: Path) -> Run:
    return record_fetched(home, code / "run/outputs", code, recipe="sft")


def plain(code: Path, home: Path, **wanted: Any) -> Export:
    """The export of the best checkpoint of the run in ``code``, into ``home/out``."""
    place = Wanted(home / "out", **({"merged": False, "plain": True} | wanted))
    made, *_ = export(of_best(code / "run/outputs"), run_in(code, home / "state"), place, Silent())
    return made


@pytest.mark.parametrize("name", RECIPES)
def test_a_checkpoint_becomes_what_the_finished_model_is(
    trained: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    code = trained(name)
    made, best = plain(code, tmp_path), code / "run/outputs/models/best"
    assert (made.form, made.path, made.by_box) == ("plain", tmp_path / "out/plain", False)
    assert made.comparison.agree == made.comparison.answers and made.comparison.limit < 0.01
    there, here = (
        {path.relative_to(each).as_posix() for path in each.rglob("*") if path.is_file()} for each in (best, made.path)
    )
    assert here == there - {"manifest.json"}
    for path in here - {"README.md", "metrics.json", "smoke/about.json"}:
        if path.endswith(".safetensors"):
            ours, own = load_file(made.path / path), load_file(best / path)
            assert ours.keys() == own.keys()
            exactly = 0 if "smoke" not in path else 1e-5
            for tensor, saved in ours.items():
                assert saved.dtype == own[tensor].dtype
                torch.testing.assert_close(saved, own[tensor], rtol=exactly, atol=exactly)
        else:
            assert (made.path / path).read_bytes() == (best / path).read_bytes(), path
    measured = json.loads((made.path / "metrics.json").read_text())
    assert measured.items() <= json.loads((best / "metrics.json").read_text()).items() and measured["loss"] > 0
    card = (made.path / "README.md").read_text()
    assert "# legal, step-0" in card and "## Use" in card and f"Measured at step {measured['step']}" in card
    assert str(tmp_path) not in card and str(code) not in card


@pytest.mark.parametrize("name", ["classify with LoRA", "sft", "finetune"])
def test_a_checkpoint_is_merged_as_the_finished_model_is(
    trained: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    code = trained(name)
    made = plain(code, tmp_path, merged=True, plain=False)
    again = Wanted(tmp_path / "best")
    (whole,) = export(code / "run/outputs/models/best", run_in(code, tmp_path / "other"), again, Silent())
    assert (made.form, made.by_box, whole.by_box) == (
        "merged",
        False,
        True,
    ) and made.merged_layers == whole.merged_layers
    ours, own = load_file(made.path / "model.safetensors"), load_file(whole.path / "model.safetensors")
    assert ours.keys() == own.keys() and all(torch.equal(ours[each], own[each]) for each in own)


@pytest.mark.parametrize("mistake", ["left out", "another step"])
@pytest.mark.parametrize("name", ["classify with LoRA", "sft"])
def test_other_weights_do_not_pass(
    trained: Callable[[str], Path], name: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, real = trained(name), worker.write_finished_model
    others = [path for path in (code / "run/outputs/checkpoints").iterdir() if path != of_best(code / "run/outputs")]

    def wrong(checkpoint: Path, model: Any, tokenizer: Any, folder: Path, **more: Any) -> None:
        network = getattr(model, "encoder", model)
        if mistake == "left out":
            for parameter in (each for name, each in network.named_parameters() if "lora_B" in name):
                torch.nn.init.normal_(parameter)
        else:
            model = load_target(others[0], base_path=code / "base").model
        real(checkpoint, model, tokenizer, folder, **more)

    monkeypatch.setattr(worker, "write_finished_model", wrong)
    with pytest.raises(SmokeTestFailed, match="the model of the checkpoint does not predict"):
        plain(code, tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint_is_only_copied_and_so_refused(trained: Callable[[str], Path], tmp_path: Path) -> None:
    best = trained("sft") / "run/outputs/models/best"
    with pytest.raises(UserError, match="--plain would only copy it"):
        export(best, None, Wanted(tmp_path / "out", merged=False, plain=True), Silent())
