"""Training steps of the classifier beside transformers' Trainer with its defaults, on the same texts.

    python -m tests.benchmarks.bench_classify [--quick]

The encoder has MiniLM's shape with random weights; LoRA of rank 8. On ragged texts the Trainer computes padding that we group
away, so the bound is four fifths of what that alone is worth.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertModel

from remote_payload.recipes.classify import ClassifyTask
from remote_payload.settings.classify import ClassifySettings
from remote_payload.settings.reading import read_settings
from remote_payload.train.data.labelled import Example, LabelledTexts, Tokenised
from remote_payload.train.distributed import World
from remote_payload.train.model.classifier import Classifier
from remote_payload.train.model.lora import add_lora
from remote_payload.train.model.precision import resolve_precision
from tests.benchmarks.measure import Row, run_piece
from tests.benchmarks.training.trainer import DEVICE, beside_trainer, ours, trainer

BATCH, LENGTH, LONGEST = 8, 128, 256
SETTINGS = {
    "model": "m", "train": "t", "epochs": 1, "max_length": LONGEST, "batch": {"size": BATCH},
    "evaluation": {"every_epochs": None}, "checkpoint": {"every_epochs": None}, "lora": {"rank": 8, "alpha": 16},
}  # fmt: skip


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    steps = 6 if quick else 10
    yield step("fixed", [LENGTH] * BATCH * steps, quick)
    yield step("ragged", ragged(BATCH * steps), quick)


def ragged(count: int) -> list[int]:
    """Lengths as texts of the web have them: log-normal, 16 tokens to the limit."""
    generator = random.Random(0)
    return [min(LONGEST, max(16, int(generator.lognormvariate(4.2, 0.8)))) for _ in range(count)]


def step(name: str, lengths: list[int], quick: bool) -> Row:
    texts = [random.Random(index).choices(range(1000, 30_000), k=length) for index, length in enumerate(lengths)]
    labelled = [{"input_ids": ids, "labels": number % 2} for number, ids in enumerate(texts)]
    model = minilm()
    return beside_trainer(
        f"classify step, {name} lengths, tokens a second",
        lengths,
        BATCH,
        lambda: classify_ours(copy.deepcopy(model), texts),
        lambda: trainer(WithLoss(copy.deepcopy(model)), labelled, BATCH, pad),
        quick,
    )


def minilm() -> Classifier:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    lora = read_settings(ClassifySettings, SETTINGS).lora
    return Classifier(add_lora(BertModel(config, add_pooling_layer=False), lora, "FEATURE_EXTRACTION"), 2)


def classify_ours(model: Classifier, texts: list[list[int]]) -> float:
    settings = read_settings(ClassifySettings, SETTINGS)
    world = World.from_environment(DEVICE)
    data = LabelledTexts([Example("", 0)] * len(texts), [], [0, 1], [])
    sides = [Tokenised(texts, [number % 2 for number in range(len(texts))], 0), Tokenised(texts[:2], [0, 1], 0)]
    task = ClassifyTask(settings, world, data, sides, 0, resolve_precision("auto", world.device))
    return ours(settings, "classify", model.to(world.device), task)


class WithLoss(nn.Module):
    """The classifier as the Trainer wants it."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        logits = self.model(input_ids, attention_mask)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def pad(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in batch], batch_first=True)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": torch.tensor([row["labels"] for row in batch]),
    }


if __name__ == "__main__":
    main()
