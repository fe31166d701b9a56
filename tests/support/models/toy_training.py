"""A small real training run, for tests of the loop: a tiny Llama on ragged rows of a fixed text.

    python -m tests.support.models.toy_training FOLDER [SETTINGS AS JSON]

writes ``losses.json`` (of its own steps) and the run's outputs into FOLDER. ``GPURUN_RESUME`` resumes. Alone or under torchrun.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from remote_payload.settings.reading import read_settings
from remote_payload.settings.training import Batch, Checkpoint, Evaluation, Optimizer, Schedule
from remote_payload.train.distributed import World
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.run import Run, exit_code, leave
from remote_payload.train.state import host_memory, saving
from remote_payload.train.state.progress import Outcome
from remote_payload.train.telemetry import Telemetry
from tests.support.models.tiny_models import tiny_model

METRICS = {"loss": False, "tokens": True}


@dataclass
class ToySettings:
    epochs: float = 2.0
    max_steps: int | None = None
    seed: int = 0
    dropout: float = 0.0
    sharded: bool = False  # FSDP2
    oom_on_rank: int = -1  # in its first micro-batch of more than two rows
    fail_on_rank: int = -1
    hold_save_at: int = 0  # stop for ever in the middle of this step's save, once its tensors are written
    full_disk_at: int = 0  # the disk fills in the middle of this step's save, and stays full
    no_host_memory: bool = False  # for a copy of a checkpoint
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    batch: Batch = field(default_factory=Batch)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    evaluation: Evaluation = field(default_factory=Evaluation)


class ToyTask:
    """Next-token prediction on 24 ragged rows of random tokens; the order is a function of (seed, epoch)."""

    fixed_shapes = False

    def __init__(self, run: Run) -> None:
        self.run, self.world = run, run.world
        generator = torch.Generator().manual_seed(5)
        lengths = torch.randint(4, 17, (24,), generator=generator).tolist()
        self.rows = [torch.randint(4, 384, (length,), generator=generator) for length in lengths]
        self.batch = run.settings.batch.size
        self.steps_per_epoch = len(self.rows) // self.batch

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1000 * self.run.settings.seed + epoch)
        order = torch.randperm(len(self.rows), generator=generator).tolist()
        for step in range(start, self.steps_per_epoch):
            yield order[step * self.batch : (step + 1) * self.batch]

    def micro_batches(self, step: list[int], size: int) -> list[MicroBatch]:
        mine = self.world.share(step)
        return [self._collate([self.rows[i] for i in mine[at : at + size]]) for at in range(0, len(mine), size)]

    def heaviest(self, size: int) -> MicroBatch:
        longest = max(self.rows, key=len)
        return self._collate([longest] * size)

    def _collate(self, rows: list[Tensor]) -> MicroBatch:
        width = max(len(row) for row in rows)
        ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            labels[index, : len(row) - 1] = row[1:]
        return MicroBatch({"ids": ids, "labels": labels}, sum(len(row) for row in rows))

    def loss(self, model: nn.Module, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        if self.world.rank == self.run.settings.fail_on_rank:
            raise RuntimeError(f"the toy was told to fail on rank {self.world.rank}")
        if self.world.rank == self.run.settings.oom_on_rank and len(micro.tensors["ids"]) > 2 and model.training:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        logits = model(input_ids=micro.tensors["ids"], use_cache=False).logits.float()
        logits = nn.functional.dropout(logits, self.run.settings.dropout, model.training)
        labels = micro.tensors["labels"]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
        return loss, (labels != -100).sum()

    def evaluate(self, model: nn.Module, size: int) -> dict[str, float]:
        total, count = self.loss(model, self._collate(self.rows[:8]).to(self.world.device))
        return {"loss": float(total / count), "tokens": float(count)}


def toy_run(folder: Path, settings: dict[str, Any] | None = None, resume: str | None = None) -> Run:
    """A run whose outputs lie in ``folder``; settings as a job file would give them."""
    values = {"batch": {"size": 8}, "schedule": {"name": "constant", "warmup": 0}, **(settings or {})}
    world = World.from_environment("cpu")
    telemetry = Telemetry("toy", folder / "events.jsonl", folder / "outputs" / "logs" / "toy", world.main)
    read, outputs = read_settings(ToySettings, values), folder / "outputs"
    higher = METRICS.get(read.evaluation.metric, False)
    return Run("toy", "toy", {}, read, outputs, resume, world, telemetry, higher_is_better=higher)


def toy_train(run: Run, task: Any = None, **options: Any) -> tuple[nn.Module, Outcome]:
    """Trains the toy model; gives it and the outcome."""
    model = tiny_model("llama")
    if run.settings.sharded:
        run.world.shard(model, model.model.layers)
    return model, train(run, model, task or ToyTask(run), **options)


def hold(step: int) -> None:
    """From now on a save of this step stops for ever once its tensors are written; training goes on to the next save."""
    write = saving.write_pieces

    def held(path: Path, begin: bytes, pieces: Iterable[Tensor]) -> str:
        sha256 = write(path, begin, pieces)
        if path.parent.name.endswith(f"{step:06d}") and path.name == "optimizer.safetensors":
            (path.parent / "held").touch()
            threading.Event().wait()
        return sha256

    saving.write_pieces = held


def fill_at(step: int, folder: Path) -> None:
    """For ``extras``: there was room when the save began, and its tensors are not written yet."""
    if step and folder.name.endswith(f"{step:06d}"):
        fill(folder.parent)


def fill(disk: Path) -> None:
    """Takes all that is free, to the last byte."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
        file.seek(0, os.SEEK_END)
        with suppress(OSError):
            while True:
                file.write(b"\0" * 4096)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    run = toy_run(folder, json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}, os.environ.get("GPURUN_RESUME"))

    def work() -> None:
        if run.settings.hold_save_at:
            hold(run.settings.hold_save_at)
        if run.settings.no_host_memory:
            host_memory.available = lambda: 1
        _, outcome = toy_train(run, extras=lambda folder: fill_at(run.settings.full_disk_at, folder))
        if run.world.main:
            (folder / "losses.json").write_text(json.dumps(outcome.losses))

    leave(exit_code(work))


if __name__ == "__main__":
    main()
