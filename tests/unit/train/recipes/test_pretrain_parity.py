"""Our pretraining loop beside transformers' Trainer: the same model, rows and order must give the same losses."""

from __future__ import annotations

from pathlib import Path

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
TOLERANCE = 2e-4  # of the loss, absolute, over 10 steps: two orders of adding up fp32


def task_of(settings: PretrainSettings) -> RowTask:
    ids = np.random.default_rng(1).integers(4, 380, (30, LENGTH)).astype(np.uint16)
    return RowTask(settings, ALONE, TokenRows(ids), torch.float32, lambda model, size: {"loss": 0.0})


def planned(micro: int) -> PretrainSettings:
    settings = PretrainSettings(corpus="data", epochs=EPOCHS, seed=3)
    settings.batch.size, settings.batch.micro = SIZE, micro
    settings.optimizer.learning_rate, settings.optimizer.weight_decay = RATE, 0.1
    settings.schedule.name, settings.schedule.warmup = "constant", 0
    settings.evaluation.every_epochs = settings.checkpoint.every_epochs = None
    return settings


def losses_of_ours(micro: int, folder: Path) -> list[float]:
    settings = planned(micro)
    telemetry = Telemetry("parity", folder / "events.jsonl", folder / "logs", True)
    run = Run("parity", "pretrain", {}, settings, folder / "outputs", None, ALONE, telemetry)
    network = tiny_model("gpt2")
    network.set_attn_implementation("gpurun_packed")
    return train(run, CausalLoss(network), task_of(settings)).losses


class InOrder(Trainer):
    """The Trainer with its own defaults, but for the order of the rows."""

    def _get_train_sampler(self, *arguments: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def without_first(row: torch.Tensor) -> torch.Tensor:
    """A row's labels: the Trainer divides by all that count, the first included, which nothing predicts."""
    return torch.cat([torch.tensor([IGNORED]), row[1:]])


def losses_of_the_trainer(folder: Path) -> list[float]:
    task = task_of(planned(SIZE))
    order = [row for epoch in range(EPOCHS) for step in task.steps(epoch, 0) for row in step]
    rows = [torch.from_numpy(task.rows.ids[row].astype(np.int64)) for row in order]
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=SIZE, learning_rate=RATE,
        weight_decay=0.1, lr_scheduler_type="constant", logging_steps=1, save_strategy="no",
        report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
    )  # fmt: skip
    trainer = InOrder(
        model=tiny_model("gpt2"),
        args=arguments,
        train_dataset=[{"input_ids": row, "labels": without_first(row)} for row in rows],
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_ten_steps_have_the_losses_of_the_trainer(tmp_path):
    theirs = losses_of_the_trainer(tmp_path / "theirs")
    for micro in (SIZE, 2):
        ours = losses_of_ours(micro, tmp_path / f"ours-{micro}")
        assert len(ours) == len(theirs) == 10
        assert ours[0] - ours[-1] > 0.05, "nothing was learnt, so equality says nothing"
        assert ours == pytest.approx(theirs, abs=TOLERANCE)
