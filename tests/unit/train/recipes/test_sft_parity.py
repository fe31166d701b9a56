"""Our loop beside transformers' Trainer: the same model, batches and order must give the same losses."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from remote_payload.settings.sft import SftSettings
from remote_payload.train.data.chat import Format, encode_examples
from remote_payload.train.data.packing import IGNORED
from remote_payload.train.data.records import Record
from remote_payload.train.distributed import World
from remote_payload.train.loop.loop import train
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.run import Run
from remote_payload.train.tasks.packed_task import PackedTask
from remote_payload.train.telemetry import Telemetry
from tests.support.models.language_data import conversations
from tests.support.models.tiny_models import tiny_model, tiny_tokenizer

SIZE, EPOCHS, RATE = 6, 2, 3e-3
# How far a step's loss may be off, relatively: in bf16 padded and packed rows are rounded differently, step after step.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-4}


def documents():
    records = [Record(value, "chat.jsonl", line) for line, value in enumerate(conversations(30), start=1)]
    examples, _ = encode_examples(records, tiny_tokenizer(), Format(), 64)
    return [example.document for example in examples]


def make_task(dtype):
    world = World(0, 1, 0, torch.device("cpu"))
    options = {"batch": SIZE, "max_length": 64, "seed": 3, "dtype": dtype}
    return PackedTask(world, documents(), documents()[:2], **options)


def losses_of_ours(name, micro, schedule, dtype, folder):
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    settings = SftSettings(model="tiny", train="data", epochs=EPOCHS, seed=3, precision=precision)
    settings.batch.size, settings.batch.micro = SIZE, micro
    settings.optimizer.learning_rate = RATE
    settings.schedule.name, settings.schedule.warmup = schedule, 0
    telemetry = Telemetry("parity", folder / "events.jsonl", folder / "logs", True)
    run = Run("parity", "sft", {}, settings, folder / "outputs", None, World(0, 1, 0, torch.device("cpu")), telemetry)
    network = tiny_model(name)
    network.set_attn_implementation("gpurun_packed")
    return train(run, CausalLoss(network), make_task(dtype)).losses


def padded(rows):
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 1, "labels": IGNORED, "attention_mask": 0}
    return {
        name: torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])
        for name, value in fill.items()
    }


def losses_of_the_trainer(name, schedule, dtype, folder):
    """The Trainer on padded batches, in the order in which our task takes the documents; its labels are not shifted."""
    task = make_task(dtype)
    order = [index for epoch in range(EPOCHS) for step in task.steps(epoch, 0) for index in step]
    rows = [
        {
            "input_ids": document.ids,
            "labels": [
                token if learnt else IGNORED for token, learnt in zip(document.ids, document.learn, strict=True)
            ],
            "attention_mask": [1] * len(document),
        }
        for document in (task.documents[index] for index in order)
    ]
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=SIZE, num_train_epochs=1, learning_rate=RATE, weight_decay=0.01,
        lr_scheduler_type=schedule, max_grad_norm=1.0, bf16=dtype == torch.bfloat16, report_to=[], use_cpu=True, logging_steps=1,
        save_strategy="no", disable_tqdm=True, seed=3,
    )  # fmt: skip

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return SequentialSampler(rows)

    trainer = InOrder(tiny_model(name), arguments, data_collator=padded, train_dataset=rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("name", ["qwen2", "llama"])
@pytest.mark.parametrize("micro", [6, 1])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_losses_equal_the_trainers_to_one_in_ten_thousand_over_two_epochs(tmp_path, name, micro, schedule):
    compare(name, micro, schedule, torch.float32, tmp_path)


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_so_they_do_in_bf16_but_for_rounding(tmp_path, name):
    ours = compare(name, 2, "cosine", torch.bfloat16, tmp_path)
    exact = losses_of_ours(name, 2, "cosine", torch.float32, tmp_path / "exact")
    assert ours != pytest.approx(exact, rel=1e-5), "autocast changed nothing, so this compares fp32"


def compare(name, micro, schedule, dtype, folder):
    ours = losses_of_ours(name, micro, schedule, dtype, folder / "ours")
    theirs = losses_of_the_trainer(name, schedule, dtype, folder / "theirs")
    assert len(ours) == len(theirs) == 10
    assert ours == pytest.approx(theirs, rel=TOLERANCE[dtype])
    assert ours[-1] < ours[0] - 0.5, "nothing was learnt, so equality says nothing"
    return ours
