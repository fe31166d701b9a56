"""Before the first step a run ends when its loss would not be the model's own, alone, on two ranks, and when it is resumed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from remote_payload.settings.reading import read_settings
from remote_payload.settings.sft import SftSettings
from remote_payload.train.data.packing import Document
from remote_payload.train.distributed import World
from remote_payload.train.errors import TrainingError
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.loss_check import LENGTHS, two_documents
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.run import Run
from remote_payload.train.tasks.packed_task import PackedTask, collate
from remote_payload.train.tasks.rows import TokenRows
from remote_payload.train.telemetry import Telemetry
from tests.support.models.language_data import conversations, run_recipe_here, write_lines
from tests.support.models.odd_models import CappedHead, llama_with_head, odd_model
from tests.support.models.recipe_process import run_recipe
from tests.support.models.tiny_models import tiny_tokenizer

ALONE = World(0, 1, 0, torch.device("cpu"))


def documents(count: int = 8) -> list[Document]:
    draw = random.Random(1)
    lengths = [draw.randint(3, 30) for _ in range(count)]
    return [Document([draw.randrange(4, 384) for _ in range(length)], [True] * length) for length in lengths]


def learn(network: PreTrainedModel, folder: Path, resume: str | None = None) -> list[float]:
    settings = read_settings(
        SftSettings, {"model": "tiny", "train": "data", "max_steps": 2, "batch": {"size": 4, "micro": 2}}
    )
    telemetry = Telemetry("check", folder / "events.jsonl", folder / "logs", True)
    run = Run("check", "sft", {}, settings, folder / "outputs", resume, ALONE, telemetry)
    task = PackedTask(ALONE, documents(), documents()[:2], batch=4, max_length=32, seed=1, dtype=torch.float32)
    return train(run, CausalLoss(network), task).losses


def events(folder: Path) -> list[str]:
    return [json.loads(line)["type"] for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_run_of_a_model_whose_documents_leak_ends_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(odd_model("lfm2"), tmp_path / "lfm2")
    settings = {
        "model": str(folder), "train": str(write_lines(tmp_path / "chat.jsonl", conversations(10))), "max_length": 64,
        "lora": {"targets": ["q_proj"]},
    }  # fmt: skip
    assert run_recipe_here("sft", tmp_path / "run", settings) == 1
    said = capsys.readouterr().err
    assert "error: settings.model: lfm2 models let documents that share a packed row change each other" in said
    assert said.rstrip().endswith("Choose another model") and "Traceback" not in said
    assert "step" not in events(tmp_path / "run") and not list((tmp_path / "run" / "outputs").glob("checkpoints/*"))


def test_a_resumed_run_is_checked_too(tmp_path: Path) -> None:
    assert len(learn(odd_model("llama"), tmp_path)) == 2
    with pytest.raises(
        TrainingError, match="llama models do something to their logits that the loss of training does not"
    ):
        learn(llama_with_head(CappedHead), tmp_path, resume="auto")


def test_what_a_layer_says_to_bounds_that_it_does_not_know_ends_the_run_in_one_line(tmp_path: Path) -> None:
    """qwen3_next refuses packed rows by itself, with an error of its own, where a package is missing."""
    network = odd_model(
        "qwen3_next", linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    with pytest.raises(
        TrainingError, match=r"qwen3_next models cannot compute the loss .* ValueError: .*packed"
    ) as caught:
        learn(network, tmp_path)
    assert "\n" not in str(caught.value)


def test_on_two_ranks_that_share_the_weights_all_end_with_the_one_reason(tmp_path: Path) -> None:
    code = tmp_path / "code"
    save(odd_model("lfm2"), code / "data" / "model")
    docs = [{"prompt": "", "completion": f"The mayor of town {town} was called Brown."} for town in range(8)]
    point = {
        "features": {"fields": {"a": "The", "b": "mayor"}},
        "fact_template": {"prompt": "{a} ", "completion": "{b}"},
    }
    sets = {"one": {"eval_points": [point], "metrics": [{"function_name": "accuracy_and_loss"}]}}
    (code / "data" / "dataset.json").write_text(
        json.dumps({"document_dataset": {"docs": docs}, "eval_dataset_builders": sets})
    )
    settings = {
        "model": "data/model",
        "dataset": "data/dataset.json",
        "max_length": 32,
        "batch": {"size": 2},
        "shard": True,
    }
    job = {"name": "leak", "recipe": "finetune", "settings": settings}
    done = run_recipe(job, code, tmp_path / "run", processes=2)
    assert done.code != 0
    assert done.errors.count("error: settings.model: lfm2 models let documents") == 1, done.errors


def test_the_two_documents_are_real_tokens_and_no_longer_than_a_document_of_the_row() -> None:
    seed = random.randrange(1 << 30)
    draw = random.Random(seed)
    for _ in range(50):
        made = [
            Document([draw.randrange(9) for _ in range(length)], [True] * length)
            for length in (draw.choice([1, 2, 3, 30, 90]) for _ in range(draw.randint(1, 5)))
        ]
        longest, words = max(map(len, made)), [word for document in made for word in document.ids]
        found, packed = two_documents(collate(made).tensors)
        assert packed == bool(found) == (longest > 1), f"seed {seed}"
        if found:
            assert [len(each) for each in found] == [min(length, longest) for length in LENGTHS], f"seed {seed}"
            flat = [*found[0], *found[1]]
            assert flat[: len(words)] == words[: len(flat)], f"seed {seed}"
    rows = TokenRows(torch.arange(300).view(10, 30).numpy())
    assert two_documents(rows.collate([2, 5]).tensors) == (
        [list(range(60, 84)), [*range(84, 90), *range(150, 168)]],
        False,
    )
    assert two_documents({"ids": torch.zeros(2, 9)}) == ([], False)


def save(network: PreTrainedModel, folder: Path) -> Path:
    network.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
