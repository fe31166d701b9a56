from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from remote_payload.train.errors import InputError, Stopped, TrainingError
from tests.support.models.toy_training import ToyTask, toy_run, toy_train

CONSTANT = {"schedule": {"name": "constant", "warmup": 0}, "optimizer": {"learning_rate": 3e-3}}


def losses(folder: Path, size: int, micro: int) -> list[float]:
    _, outcome = toy_train(toy_run(folder, {**CONSTANT, "batch": {"size": size, "micro": micro}}))
    return outcome.losses


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


def test_one_micro_batch_of_eight_teaches_what_eight_of_one_do(tmp_path: Path) -> None:
    whole, single = losses(tmp_path / "whole", 8, 8), losses(tmp_path / "single", 8, 1)
    assert len(whole) == 6
    assert whole == pytest.approx(single, abs=2e-5)
    assert whole[0] - whole[-1] > 0.01, "nothing was learnt, so equality says nothing"


def test_two_ranks_teach_what_one_does(tmp_path: Path) -> None:
    alone = losses(tmp_path / "alone", 8, 8)
    settings = json.dumps({**CONSTANT, "batch": {"size": 8, "micro": 4}})
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.support.models.toy_training", str(tmp_path / "two"), settings]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "losses.json").read_text()) == pytest.approx(alone, abs=2e-5)


class OutOfMemoryOnce(ToyTask):
    """Runs out of memory in the second micro-batch of step 3, for any micro-batch over two rows."""

    def loss(self, model: Any, micro: Any) -> Any:
        result = super().loss(model, micro)
        if model.training and len(micro.tensors["ids"]) > 2 and self.calls_at_three():
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return result

    def calls_at_three(self) -> bool:
        self.calls = getattr(self, "calls", 0) + 1
        return self.calls >= 6


@pytest.mark.stand_in
def test_a_step_that_runs_out_of_memory_is_redone_smaller_and_nothing_else_changes(tmp_path: Path) -> None:
    smooth = losses(tmp_path / "smooth", 8, 4)
    run = toy_run(tmp_path / "oom", {**CONSTANT, "batch": {"size": 8, "micro": 4}})
    _, outcome = toy_train(run, OutOfMemoryOnce(run))
    assert outcome.losses == pytest.approx(smooth, abs=2e-5)
    (event,) = events(tmp_path / "oom", "oom")
    assert (event["step"], event["micro_batch_before"], event["micro_batch_after"]) == (3, 4, 2)


@pytest.mark.stand_in
def test_a_single_row_that_does_not_fit_ends_the_run_with_advice(tmp_path: Path) -> None:
    class Never(ToyTask):
        def loss(self, model: Any, micro: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")

    run = toy_run(tmp_path, {"batch": {"size": 8, "micro": 8}})
    with pytest.raises(TrainingError, match="activation_checkpointing"):
        toy_train(run, Never(run))


def test_a_nan_loss_stops_at_its_step_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    class Poisoned(ToyTask):
        def loss(self, model: Any, micro: Any) -> Any:
            total, count = super().loss(model, micro)
            self.calls = getattr(self, "calls", 0) + 1
            return (total * float("nan") if self.calls == 2 else total), count

    run = toy_run(tmp_path, {"batch": {"size": 8, "micro": 8}})
    with pytest.raises(TrainingError, match="loss is not finite at step 2"):
        toy_train(run, Poisoned(run))
    assert [flag["name"] for flag in events(tmp_path, "flag")] == ["nan"]


def test_sigterm_saves_a_checkpoint_and_ends_with_143(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    with pytest.raises(Stopped) as stopped:
        toy_train(run, signalling(run, signal.SIGTERM, at_step=2))
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert (tmp_path / "outputs/checkpoints/step-000002/manifest.json").is_file()


def test_sigusr1_saves_a_checkpoint_and_training_goes_on(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {"checkpoint": {"every_steps": 100}, "evaluation": {"every_epochs": None}})
    _, outcome = toy_train(run, signalling(run, signal.SIGUSR1, at_step=2))
    assert outcome.progress.step == 6
    assert [event["step"] for event in events(tmp_path, "checkpoint")] == [2, 6]


def signalling(run: Any, number: int, at_step: int) -> ToyTask:
    """A task that sends this process a signal while it computes a step."""

    class Signalling(ToyTask):
        def micro_batches(self, step: Any, size: int) -> Any:
            self.taken = getattr(self, "taken", 0) + 1
            if self.taken == at_step:
                os.kill(os.getpid(), number)
            return super().micro_batches(step, size)

    return Signalling(run)


def test_training_ends_early_when_the_metric_no_longer_improves(tmp_path: Path) -> None:
    settings = {"epochs": 20, "evaluation": {"metric": "tokens", "patience": 3}}
    best: list[int] = []
    _, outcome = toy_train(toy_run(tmp_path, settings), on_best=lambda metrics, progress: best.append(progress.step))
    assert outcome.reason == "early stopping"
    assert best == [3], "a metric that stays equal is not better"
    assert outcome.progress.step == 3 + 3 * 3


def test_a_metric_that_the_recipe_does_not_report_is_named_with_those_it_does(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {"evaluation": {"metric": "f2"}})
    with pytest.raises(InputError, match=r"settings.evaluation.metric: there is no f2; there are loss, tokens"):
        toy_train(run)


def test_evaluating_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    often = {"dropout": 0.2, "evaluation": {"every_steps": 1, "at_start": True}}
    never = {"dropout": 0.2, "evaluation": {"every_epochs": None}}
    runs = [toy_run(tmp_path / name, settings) for name, settings in (("often", often), ("never", never))]
    assert toy_train(runs[0], Restless(runs[0]))[1].losses == toy_train(runs[1], Restless(runs[1]))[1].losses


class Restless(ToyTask):
    """Draws random numbers when it evaluates, as sampling does."""

    def evaluate(self, model: Any, size: int) -> dict[str, float]:
        torch.rand(3)
        return super().evaluate(model, size)


class Scripted(ToyTask):
    """Evaluations whose figures are given in advance."""

    figures: ClassVar[list[dict[str, float]]] = []

    def evaluate(self, model: Any, size: int) -> dict[str, float]:
        self.asked = getattr(self, "asked", -1) + 1
        return self.figures[self.asked]


@pytest.mark.parametrize(("metric", "best"), [("loss", [1, 3]), ("tokens", [1, 2, 4])])
def test_which_model_is_the_best_follows_from_the_metric_alone(tmp_path: Path, metric: str, best: list[int]) -> None:
    run = toy_run(tmp_path, {"epochs": 1.33, "evaluation": {"metric": metric, "every_steps": 1}})
    task = Scripted(run)
    values = zip((3.0, 4.0, 2.0, 5.0), (10.0, 11.0, 9.0, 12.0), strict=True)
    task.figures = [{"loss": loss, "tokens": tokens} for loss, tokens in values]
    kept: list[int] = []
    toy_train(run, task, on_best=lambda metrics, progress: kept.append(progress.step))
    assert kept == best
