"""Our step against the transformers Trainer's defaults, on the same classifier and the same texts, in one process by turns.

    python -m tests.benchmarks.bench_classify [--rounds 3] [--device cpu]

Prints the ratio of real tokens per second (ours / Trainer's) for texts of one length and for ragged ones, and how many padded
tokens the Trainer computes for each real one. The encoder has MiniLM's shape with random weights; LoRA of rank 8.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, Trainer, TrainingArguments

from remote_payload.recipes.classify import ClassifyTask
from remote_payload.settings.classify import ClassifySettings
from remote_payload.settings.reading import read_settings
from remote_payload.train.classifier import Classifier
from remote_payload.train.distributed import World
from remote_payload.train.labelled import Example, LabelledTexts, Tokenised
from remote_payload.train.loop import train
from remote_payload.train.lora import add_lora
from remote_payload.train.precision import resolve_precision
from remote_payload.train.run import Run
from remote_payload.train.telemetry import Telemetry

BATCH, STEPS = 16, 8


def clock() -> float:
    """Seconds of this process's own work on a CPU, which neighbours on the machine do not change much; wall time with a GPU."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    results = {}
    for name, lengths in (("fixed", [128] * BATCH * STEPS), ("ragged", ragged(BATCH * STEPS))):
        rows = [
            [random.Random(index).randint(1000, 30000) for _ in range(length)] for index, length in enumerate(lengths)
        ]
        model = minilm()
        pairs = [
            (ours(model, rows, options.device), trainer(model, rows, options.device)) for _ in range(options.rounds)
        ]
        ratios = [theirs / own for own, theirs in pairs]
        padded = sum(BATCH * max(lengths[at : at + BATCH]) for at in range(0, len(lengths), BATCH)) / sum(lengths)
        results[name] = {"ratio": statistics.median(ratios), "all": ratios, "padded_per_real": padded}
        print(f"{name}: {statistics.median(ratios):.2f}x the Trainer ({', '.join(f'{r:.2f}' for r in ratios)}); "
              f"the Trainer pads to {padded:.2f} tokens a real one", flush=True)  # fmt: skip
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    print(json.dumps({"hardware": hardware, "threads": torch.get_num_threads(), **results}))


def ragged(count: int) -> list[int]:
    """Lengths as texts of the web have them: log-normal, 16 to 256 tokens."""
    generator = random.Random(0)
    return [min(256, max(16, int(generator.lognormvariate(4.2, 0.8)))) for _ in range(count)]


def minilm() -> Classifier:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    settings = read_settings(ClassifySettings, {"model": "m", "train": "t", "lora": {"rank": 8, "alpha": 16}})
    return Classifier(add_lora(BertModel(config, add_pooling_layer=False), settings.lora, "FEATURE_EXTRACTION"), 2)


def ours(model: Classifier, rows: list[list[int]], device: str) -> float:
    """Seconds of training on all rows once."""
    settings = read_settings(
        ClassifySettings, {"model": "m", "train": "t", "epochs": 1, "max_length": 256, "batch": {"size": BATCH},
                           "evaluation": {"every_epochs": None}, "lora": {"rank": 8}},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        world = World.from_environment(device)
        telemetry = Telemetry("bench", Path(folder) / "events", Path(folder) / "logs", True)
        telemetry.log = lambda text: None  # type: ignore[method-assign]
        run = Run("bench", "classify", {}, settings, Path(folder), None, world, telemetry)
        side = Tokenised(rows, [0, 1] * (len(rows) // 2), 0)
        few = Tokenised(rows[:2], [0, 1], 0)
        data = LabelledTexts([Example("", 0)] * len(rows), [], [0, 1], [])
        compute = resolve_precision("auto", world.device)
        task = ClassifyTask(settings, world, data, [side, few], 0, compute)
        twin = copy.deepcopy(model).to(world.device)
        loop_seconds = timed_train(run, twin, task)
        telemetry.close()
    return loop_seconds


def timed_train(run: Run, model: Classifier, task: ClassifyTask) -> float:
    seconds: list[float] = []
    step = run.telemetry.step
    run.telemetry.step = lambda facts: (seconds.append(clock()), step(facts))  # type: ignore[assignment]
    train(run, model, task)
    return (seconds[-1] - seconds[1]) / (len(seconds) - 2) * len(seconds)  # the first two steps warm up


class Timed(Trainer):
    """Notes when each step ends, as the loop's telemetry does."""

    def training_step(self, *arguments: Any, **options: Any) -> Any:
        loss = super().training_step(*arguments, **options)
        loss.item()
        self.ends = [*getattr(self, "ends", []), clock()]
        return loss


class WithLoss(torch.nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> dict[str, Any]:
        logits = self.model(input_ids, attention_mask)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def trainer(model: Classifier, rows: list[list[int]], device: str) -> float:
    """Seconds of the Trainer on the same rows, in the order given, padded to the longest of each batch."""

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in batch], batch_first=True)
        return {
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "labels": torch.tensor([row["labels"] for row in batch]),
        }

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=BATCH, num_train_epochs=1, save_strategy="no", report_to=[],
            use_cpu=device == "cpu", disable_tqdm=True, remove_unused_columns=False, logging_strategy="no", bf16=device == "cuda",
        )  # fmt: skip
        examples = [{"input_ids": row, "labels": index % 2} for index, row in enumerate(rows)]
        theirs = Timed(WithLoss(copy.deepcopy(model)), arguments, train_dataset=examples, data_collator=collate)
        theirs.train()
    return (theirs.ends[-1] - theirs.ends[1]) / (len(theirs.ends) - 2) * len(theirs.ends)


if __name__ == "__main__":
    main()
