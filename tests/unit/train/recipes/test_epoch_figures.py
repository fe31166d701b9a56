"""What a run records of each epoch of its training: in the events, the record, the card and the log."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_payload.train.errors import Stopped
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.state.progress import EpochFigures, Progress
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.language_data import conversations, pairs, write_lines
from tests.support.models.recipe_process import run_recipe_here
from tests.support.models.toy_training import ToyTask, toy_run, toy_train

Folder = Callable[[str], Path]
STILL = {"learning_rate": 1e-30}  # an epoch of it sees the weights that the evaluation after it sees


def sft(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    few = {"max_length": 64, "generation": {"examples": 0}}
    train = str(write_lines(root / "chat.jsonl", conversations(21)))
    return {"recipe": "sft", "settings": {"model": str(tiny_folder("qwen2")), "train": train, **few}}


def preference(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    first = sft(root, tiny_folder)
    short = {**first["settings"], "max_steps": 3, "batch": {"size": 4}}
    adapter = run_recipe_here({**first, "settings": short}, root, root / "first").outputs / "models" / "best"
    kept = {name: first["settings"][name] for name in ("model", "max_length", "generation")}
    train = str(write_lines(root / "pairs.jsonl", pairs() * 3))
    return {"recipe": "preference", "settings": {**kept, "adapter": str(adapter), "train": train}}


def classify(root: Path, tiny_folder: Folder) -> dict[str, Any]:
    settings = classify_settings(tiny_folder("bert"), write_texts(root / "texts.jsonl", 43))
    return {"recipe": "classify", "settings": settings}


@pytest.mark.parametrize("job_of", [sft, preference, classify])
def test_an_epoch_has_the_figures_of_an_evaluation_of_the_same_examples_by_the_same_weights(
    job_of: Callable[[Path, Folder], dict[str, Any]], tmp_path: Path, tiny_folder: Folder
) -> None:
    job = job_of(tmp_path, tiny_folder)
    draw = random.Random(job["recipe"])
    same = {
        "validation": job["settings"]["train"], "optimizer": STILL, "epochs": 1.5,
        "batch": {"size": draw.randint(4, 8), "micro": draw.randint(1, 3)},
    }  # fmt: skip
    done = run_recipe_here({"name": "epochs", **job, "settings": {**job["settings"], **same}}, tmp_path, tmp_path / "r")
    assert done.code == 0, done.errors
    training = json.loads((done.outputs / "training_metadata.json").read_text())["training"]
    first, rest = training["epochs"]
    evaluated = training["evaluations"][0]["metrics"]
    shared = set(first["metrics"]) & set(evaluated)
    assert shared >= {
        "sft": {"loss", "token_accuracy"}, "preference": {"loss", "reward_margin", "reward_accuracy"},
        "classify": {"loss", "accuracy", "macro_f1", "weighted_f1"},
    }[job["recipe"]]  # fmt: skip
    for name in shared:
        assert first["metrics"][name] == pytest.approx(evaluated[name], abs=1e-4), name
    assert (first["epoch"], first["step"]) == (1.0, training["evaluations"][0]["step"])
    assert first["steps"] + rest["steps"] == rest["step"] == training["steps"] and 1.5 <= rest["epoch"] < 2
    losses = done.losses
    assert (training["first_loss"], training["last_loss"]) == (losses[0], losses[-1])
    assert training["samples_per_second"] > 0
    card = (done.outputs / "models/best/README.md").read_text()
    assert f"| {first['epoch']:g} | {first['seconds']:,.1f} | " in card
    assert f"{losses[0]:.4f} at the first step, {losses[-1]:.4f} at the last" in card
    names = [event["metrics"] for event in done.of_type("epoch")]
    assert names == [first["metrics"], rest["metrics"]]
    assert f"examples/s  loss {first['metrics']['loss']:.4f}" in done.log


class Counted(ToyTask):
    """The toy, which also counts its targets and its rows, and may be stopped at a step."""

    scores_width = 2
    stop_at = 0

    def scores(self, batch: MicroBatch, loss: Any) -> torch.Tensor:
        return torch.tensor([float(loss[1]), float(len(batch.tensors["ids"]))], dtype=torch.float64)

    def figures(self, scores: list[float]) -> dict[str, float]:
        return {"targets": scores[0], "rows": scores[1]}

    def micro_batches(self, step: list[int], size: int) -> list[MicroBatch]:
        self.stop_at -= 1
        if self.stop_at == 0:
            signal.raise_signal(signal.SIGTERM)
        return super().micro_batches(step, size)


def learnt(epochs: list[EpochFigures]) -> list[tuple[Any, ...]]:
    """All but the times."""
    loss = [round(epoch["metrics"]["loss"], 3) for epoch in epochs]
    counts = [(epoch["metrics"]["targets"], epoch["metrics"]["rows"]) for epoch in epochs]
    whole = [(epoch["epoch"], epoch["step"], epoch["steps"], epoch["samples"], epoch["tokens"]) for epoch in epochs]
    return list(zip(loss, counts, whole, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_stopped_anywhere_and_resumed_the_epochs_are_those_of_a_run_in_one_piece(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    size = draw.choice([3, 4, 6])
    steps = -(-24 // size)
    epochs = draw.choice([2.0, 2.5, 3.0])

    def run(folder: str, resume: str | None = None) -> Any:
        batch = {"size": size, "micro": draw.randint(1, size)}
        evaluation = {"every_steps": draw.randint(1, 2 * steps)}
        return toy_run(tmp_path / folder, {"epochs": epochs, "batch": batch, "evaluation": evaluation}, resume)

    whole = run("whole")
    _, expected = toy_train(whole, Counted(whole))
    assert len(expected.progress.epochs) == -(-epochs // 1)
    assert sum(epoch["tokens"] for epoch in expected.progress.epochs) == expected.progress.tokens
    seconds = sum(epoch["seconds"] for epoch in expected.progress.epochs)
    assert seconds == pytest.approx(expected.seconds, abs=0.1), "every second of training belongs to an epoch"

    first = run("parts")
    task = Counted(first)
    task.stop_at = draw.randint(1, int(steps * epochs) - 1)
    with pytest.raises(Stopped):
        toy_train(first, task)
    second = run("parts", "auto")
    _, outcome = toy_train(second, Counted(second))
    assert learnt(outcome.progress.epochs) == learnt(expected.progress.epochs)
    assert outcome.progress.first_loss == pytest.approx(expected.progress.first_loss, abs=1e-4)
    assert outcome.progress.timed_samples == expected.progress.timed_samples


def test_a_checkpoint_from_before_these_figures_is_gone_on_with_and_claims_nothing() -> None:
    old = {"step": 7, "epoch": 1, "step_in_epoch": 2, "seconds": 12.5, "timed_seconds": 9.0, "micro": 4}
    progress = Progress.from_state(old)
    assert (progress.timed_samples, progress.first_loss, progress.epochs) == (None, None, [])
    assert progress.open_epoch.began == 12.5 and progress.open_epoch.steps == 0
