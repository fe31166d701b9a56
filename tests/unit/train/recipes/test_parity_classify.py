"""Our loop against transformers' Trainer: the same model, the same batches in the same order, the same losses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from remote_payload.recipes.classify import ClassifyTask
from remote_payload.settings.classify import ClassifySettings
from remote_payload.settings.reading import read_settings
from remote_payload.settings.training import Lora
from remote_payload.train.data.labelled import read_labelled_texts, tokenise
from remote_payload.train.distributed import World
from remote_payload.train.download import BaseModel
from remote_payload.train.loop.loop import train
from remote_payload.train.model.classifier import build_classifier, load_tokenizer
from remote_payload.train.run import Run
from remote_payload.train.telemetry import Telemetry
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.tiny_models import ENCODERS

# In fp32 only the order of summation differs; in bf16 micro-batches that are padded to other widths are rounded differently.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-3}


class WithLoss(nn.Module):
    """The classifier in the form that the Trainer wants."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> dict[str, Any]:
        logits = self.model(input_ids, attention_mask)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class InOrder(Trainer):
    """Takes the rows as they come and keeps each step's loss unrounded."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.losses: list[float] = []

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        loss = super().compute_loss(*arguments, **options)
        self.losses.append(float(loss.detach()))
        return loss


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_losses_are_those_of_the_transformers_trainer(
    name: str, rank: int, tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    compare(tiny_folder(name), rank, "constant", torch.float32, tmp_path)


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_so_they_are_in_bf16_with_a_cosine_but_for_rounding(
    rank: int, tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    ours = compare(tiny_folder("bert"), rank, "cosine", torch.bfloat16, tmp_path / "bf16")
    exact = compare(tiny_folder("bert"), rank, "cosine", torch.float32, tmp_path / "fp32")
    assert ours != pytest.approx(exact, abs=1e-5), "autocast changed nothing, so this compares fp32"


def compare(folder: Path, rank: int, schedule: str, dtype: torch.dtype, place: Path) -> list[float]:
    """Losses of nine steps by both, which must be the same; ours."""
    place.mkdir(exist_ok=True)
    changes: dict[str, Any] = {
        "lora": {"rank": rank, "alpha": 8},
        "schedule": {"name": schedule, "warmup": 0},
        "batch": {"size": 8, "micro": 2},
        "optimizer": {"learning_rate": 0.01, "weight_decay": 0.1, "clip": 1.0},
        "epochs": 1,
        "validation_share": 0.1,
    }
    values = classify_settings(folder, write_texts(place / "a.jsonl", 80), **changes)
    settings = read_settings(ClassifySettings, values)
    world, telemetry = World.from_environment("cpu"), Telemetry("parity", place / "events", place / "logs", True)
    run = Run("parity", "classify", {}, settings, place / "outputs", None, world, telemetry)
    data, tokenizer = read_labelled_texts(settings), load_tokenizer(str(folder))
    sides = [tokenise(side, tokenizer, settings.max_length) for side in (data.train, data.validation)]
    torch.manual_seed(0)
    model = build_classifier(BaseModel(str(folder), str(folder)), 3, Lora(rank=rank, alpha=8), torch.float32)
    twin = WithLoss(copy.deepcopy(model))
    task = ClassifyTask(settings, world, data, sides, tokenizer.pad_token_id, dtype)
    ours = train(run, model, task).losses

    order = [index for step in task.steps(0, 0) for index in step]
    rows = [{"input_ids": sides[0].ids[index], "labels": sides[0].labels[index]} for index in order]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        padded = tokenizer.pad({"input_ids": [row["input_ids"] for row in batch]}, return_tensors="pt")
        return {**padded, "labels": torch.tensor([row["labels"] for row in batch])}

    arguments = TrainingArguments(
        output_dir=str(place / "trainer"), per_device_train_batch_size=8, num_train_epochs=1, learning_rate=0.01,
        lr_scheduler_type=schedule, weight_decay=0.1, max_grad_norm=1.0, bf16=dtype == torch.bfloat16, save_strategy="no",
        report_to=[], use_cpu=True, disable_tqdm=True, remove_unused_columns=False, logging_strategy="no",
    )  # fmt: skip
    trainer = InOrder(twin, arguments, train_dataset=rows, data_collator=collate)
    trainer.train()

    assert len(ours) == 9
    assert ours == pytest.approx(trainer.losses, abs=TOLERANCE[dtype])
    assert max(ours) - min(ours) > 10 * TOLERANCE[dtype], "nothing was learnt, so equality says little"
    return ours
