"""What the training pieces share: a step of ours and of transformers' Trainer, timed in the same way in the same process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from remote_payload.train.distributed import World
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.step import Task
from remote_payload.train.run import Run
from remote_payload.train.state.progress import Outcome
from remote_payload.train.telemetry import Telemetry
from tests.benchmarks.measure import Row, compare, rounds

WARM_UP = 2  # steps that are not counted: allocators, and code that torch prepares at its first use
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def clock() -> float:
    """Seconds of this process's own work on a CPU, which neighbours on the machine do not change much; wall time with a GPU."""
    return time.perf_counter() if DEVICE == "cuda" else time.process_time()


def speed(ends: list[float], tokens: list[int]) -> float:
    """Real tokens a second, from when each step ended and how many it had."""
    return sum(tokens[WARM_UP:]) / (ends[-1] - ends[WARM_UP - 1])


def ours(settings: Any, recipe: str, model: nn.Module, task: Task) -> float:
    """Real tokens a second of our loop, as a recipe runs it."""
    ends: list[float] = []
    tokens: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        run = quiet_run(settings, recipe, Path(folder))
        tell = run.telemetry.step

        def step(facts: dict[str, Any]) -> None:
            ends.append(clock())
            tokens.append(round(facts["tokens_per_second"] * facts["ms"] / 1000))
            tell(facts)

        run.telemetry.step = step  # type: ignore[method-assign]
        train(run, model, task)
        run.telemetry.close()
    return speed(ends, tokens)


def outcome(settings: Any, recipe: str, model: nn.Module, task: Task, flops_per_token: float) -> Outcome:
    """What our loop says of itself, MFU included."""
    with tempfile.TemporaryDirectory() as folder:
        run = quiet_run(settings, recipe, Path(folder))
        found = train(run, model, task, flops_per_token=flops_per_token)
        run.telemetry.close()
    return found


def quiet_run(settings: Any, recipe: str, folder: Path) -> Run:
    world = World.from_environment(DEVICE)
    telemetry = Telemetry("bench", folder / "events", folder / "logs", True)
    telemetry.log = lambda text: None  # type: ignore[method-assign]
    return Run("bench", recipe, {}, settings, folder, None, world, telemetry)


class Timed(Trainer):
    """The Trainer as it is, taking the rows in their order, that notes when each step ends and how many real tokens it had."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ends: list[float] = []
        self.tokens: list[int] = []

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return SequentialSampler(self.train_dataset)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        mask = inputs.get("attention_mask")
        self.tokens.append(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
        loss = super().training_step(model, inputs, *arguments, **options)
        loss.item()
        self.ends.append(clock())
        return loss


def trainer(model: nn.Module, rows: list[dict[str, Any]], batch: int, collate: Any = None) -> float:
    """Real tokens a second of the Trainer with its defaults on the same rows, each once."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, num_train_epochs=1, save_strategy="no", report_to=[],
            use_cpu=DEVICE == "cpu", disable_tqdm=True, remove_unused_columns=False, logging_strategy="no", bf16=DEVICE == "cuda",
        )  # fmt: skip
        theirs = Timed(model, arguments, train_dataset=rows, data_collator=collate)
        theirs.train()
    return speed(theirs.ends, theirs.tokens)


def beside_trainer(
    name: str, lengths: list[int], batch: int, ours: Callable[[], float], theirs: Callable[[], float], quick: bool
) -> Row:
    """Tokens a second of both on texts of these lengths; the bound is parity, or four fifths of what the Trainer's padding is worth."""
    padded = sum(batch * max(lengths[at : at + batch]) for at in range(0, len(lengths), batch)) / sum(lengths)
    row = compare(
        name,
        ours,
        theirs,
        count=rounds(quick),
        unit="tokens/s",
        bound=1.0 if len(set(lengths)) == 1 else 0.8 * padded,
        more_is_better=True,
        note=f"the Trainer computes {padded:.2f} tokens for each real one",
    )
    return replace(row, against="the Trainer")
