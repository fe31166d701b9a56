"""Our pretraining loop beside transformers' Trainer: the same model, rows and order must give the same losses."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from remote_payload.settings.pretrain import PretrainSettings
from remote_payload.train.data.packing import IGNORED
from remote_payload.train.distributed import World
from remote_payload.train.loop.loop import train
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.run import Run
from remote_payload.train.tasks.rows import RowTask, TokenRows
from remote_payload.train.telemetry import Telemetry
from tests.support.models.tiny_models import tiny_model

ALONE = World(0, 1, 0, torch.device("cpu"))
SIZE, EPOCHS, RATE, LENGTH = 6, 2, 3e-3, 24
# Of the loss, absolute, over 10 steps: two orders of adding up fp32, or rounding to bf16.
CASES = [(torch.float32, "constant", 2e-4), (torch.float32, "cosine", 2e-4), (torch.bfloat16, "cosine", 2e-3)]


def task_of(settings: PretrainSettings, dtype: torch.dtype) -> RowTask:
    ids = np.random.default_rng(1).integers(4, 380, (30, LENGTH)).astype(np.uint16)
    return RowTask(settings, ALONE, TokenRows(ids), dtype, lambda model, size: {"loss": 0.0})


def planned(micro: int, schedule: Literal["constant", "cosine"], dtype: torch.dtype) -> PretrainSettings:
    precision: Literal["bf16", "fp32"] = "bf16" if dtype == torch.bfloat16 else "fp32"
    settings = PretrainSettings(corpus="data", epochs=EPOCHS, seed=3, precision=precision)
    settings.batch.size, settings.batch.micro = SIZE, micro
    settings.optimizer.learning_rate, settings.optimizer.weight_decay = RATE, 0.1
    settings.schedule.name, settings.schedule.warmup = schedule, 0
    settings.evaluation.every_epochs = settings.checkpoint.every_epochs = None
    return settings


def losses_of_ours(settings: PretrainSettings, dtype: torch.dtype, folder: Path) -> list[float]:
    telemetry = Telemetry("parity", folder / "events.jsonl", folder / "logs", True)
    run = Run("parity", "pretrain", {}, settings, folder / "outputs", None, ALONE, telemetry)
    network = tiny_model("gpt2")
    network.set_attn_implementation("gpurun_packed")
    return train(run, CausalLoss(network), task_of(settings, dtype)).losses


class InOrder(Trainer):
    """The Trainer with its own defaults, but for the order of the rows."""

    def _get_train_sampler(self, *arguments: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def without_first(row: torch.Tensor) -> torch.Tensor:
    """A row's labels: the Trainer divides by all that count, the first included, which nothing predicts."""
    return torch.cat([torch.tensor([IGNORED]), row[1:]])


def losses_of_the_trainer(settings: PretrainSettings, dtype: torch.dtype, folder: Path) -> list[float]:
    task = task_of(settings, dtype)
    order = [row for epoch in range(EPOCHS) for step in task.steps(epoch, 0) for row in step]
    rows = [torch.from_numpy(task.rows.ids[row].astype(np.int64)) for row in order]
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=SIZE, learning_rate=RATE,
        weight_decay=0.1, lr_scheduler_type=settings.schedule.name, bf16=dtype == torch.bfloat16, logging_steps=1, save_strategy="no",
        report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
    )  # fmt: skip
    trainer = InOrder(
        model=tiny_model("gpt2"),
        args=arguments,
        train_dataset=[{"input_ids": row, "labels": without_first(row)} for row in rows],
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("dtype", "schedule", "tolerance"), CASES)
def test_ten_steps_have_the_losses_of_the_trainer(
    tmp_path: Path, dtype: torch.dtype, schedule: Literal["constant", "cosine"], tolerance: float
) -> None:
    theirs = losses_of_the_trainer(planned(SIZE, schedule, dtype), dtype, tmp_path / "theirs")
    for micro in (SIZE, 2):
        ours = losses_of_ours(planned(micro, schedule, dtype), dtype, tmp_path / f"ours-{micro}")
        assert len(ours) == len(theirs) == 10
        assert ours[0] - ours[-1] > 0.05, "nothing was learnt, so equality says nothing"
        assert ours == pytest.approx(theirs, abs=tolerance)
