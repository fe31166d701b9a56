"""Checkpoints that are written while training goes on: what is in them, when, and what becomes of errors."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from remote_payload.train import files
from remote_payload.train.errors import Stopped, TrainingError
from remote_payload.train.folders import read_manifest
from remote_payload.train.run import Run
from remote_payload.train.state import host_memory, saving
from remote_payload.train.state.best import model_folder
from remote_payload.train.state.checkpoint import checkpoints_in
from remote_payload.train.state.grace import DISK_SPEED, LEAST, SPARE, Grace
from tests.support.box import small_disk
from tests.support.models.tiny_models import tiny_model
from tests.support.models.toy_training import ToyTask, fill, fill_at, toy_run, toy_train

SETTINGS: dict[str, Any] = {
    "epochs": 4, "checkpoint": {"every_steps": 4, "keep": 10}, "evaluation": {"every_epochs": None}, "batch": {"size": 8, "micro": 4},
}  # fmt: skip


def flags(folder: Path) -> list[tuple[str, str]]:
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [(line["name"], line["message"]) for line in lines if line["type"] == "flag"]


def saved_events(folder: Path) -> list[int]:
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["type"] == "checkpoint"]


class Watched(ToyTask):
    """Calls ``then(step)`` as each step begins, and remembers the weights that it begins with."""

    def __init__(self, run: Run, then: Callable[[int], None] = lambda step: None) -> None:
        super().__init__(run)
        self.then, self.taken, self.weights = then, 0, {}  # type: ignore[var-annotated]

    def micro_batches(self, step: list[int], size: int) -> Any:
        self.taken += 1
        self.then(self.taken)
        return super().micro_batches(step, size)

    def loss(self, model: Any, micro: Any) -> tuple[Tensor, Tensor]:
        if model.training and self.taken not in self.weights:
            self.weights[self.taken] = {name: value.clone() for name, value in model.state_dict().items()}
        return super().loss(model, micro)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Files of tensors are written only while this is set."""
    opened, write = threading.Event(), saving.write_pieces

    def held(path: Path, begin: bytes, pieces: Iterable[Tensor]) -> str:
        assert opened.wait(60)
        return write(path, begin, pieces)

    monkeypatch.setattr(saving, "write_pieces", held)
    yield opened
    opened.set()


def test_a_save_holds_the_weights_of_its_step_though_it_is_written_later(tmp_path: Path, gate: threading.Event) -> None:
    run = toy_run(tmp_path, SETTINGS)

    def then(step: int) -> None:
        if step == 7:  # steps 5 and 6 were taken while the checkpoint of step 4 waited for its disk
            assert checkpoints_in(run.checkpoints) == []
            gate.set()

    task = Watched(run, then)
    toy_train(run, task)
    saved = load_file(run.checkpoints / "step-000004" / "model.safetensors")
    assert all(torch.equal(saved[name], task.weights[5][name]) for name in saved), "not those that step 5 began with"
    assert not all(torch.equal(saved[name], task.weights[6][name]) for name in saved), "nothing was learnt meanwhile"
    assert saved_events(tmp_path) == [4, 8, 12]
    assert all(read_manifest(found.path, hashes=True) for found in checkpoints_in(run.checkpoints))


def test_the_next_save_waits_for_the_last(tmp_path: Path, gate: threading.Event) -> None:
    run = toy_run(tmp_path, SETTINGS)
    task = Watched(run, lambda step: threading.Timer(0.5, gate.set).start() if step == 8 else None)
    toy_train(run, task)
    assert saved_events(tmp_path) == [4, 8, 12]
    whole = toy_run(tmp_path / "whole", SETTINGS)
    toy_train(whole)
    for name in ("step-000004", "step-000008", "step-000012"):
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (run.checkpoints / name / file).read_bytes() == (whole.checkpoints / name / file).read_bytes()


@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "of the last save"])
def test_an_error_that_is_not_the_disk_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    write = saving.write_pieces

    def wrong(path: Path, begin: bytes, pieces: Iterable[Tensor]) -> str:
        if not last or "000012" in path.parent.name:
            raise ZeroDivisionError("a mistake in the thread")
        return write(path, begin, pieces)

    monkeypatch.setattr(saving, "write_pieces", wrong)
    run = toy_run(tmp_path, SETTINGS)
    with pytest.raises(ZeroDivisionError, match="a mistake in the thread"):
        toy_train(run, task := Watched(run))
    assert task.taken == 12 if last else task.taken <= 8
    assert not list(run.checkpoints.glob(".tmp-*"))


def test_an_error_of_the_recipes_own_files_ends_the_run(tmp_path: Path) -> None:
    def wrong(folder: Path) -> None:
        raise ZeroDivisionError("a mistake in the recipe")

    run = toy_run(tmp_path, SETTINGS)
    with pytest.raises(ZeroDivisionError, match="a mistake in the recipe"):
        toy_train(run, extras=wrong)
    assert list(run.checkpoints.iterdir()) == []


def test_a_run_that_fails_keeps_the_checkpoint_that_is_being_written(tmp_path: Path, gate: threading.Event) -> None:
    class Poisoned(Watched):
        def loss(self, model: Any, micro: Any) -> Any:
            total, count = super().loss(model, micro)
            return (total * float("nan") if self.taken == 6 else total), count

    run = toy_run(tmp_path, SETTINGS)
    with pytest.raises(TrainingError, match="not finite at step 6"):
        toy_train(run, Poisoned(run, lambda step: threading.Timer(0.5, gate.set).start() if step == 6 else None))
    assert [found.step for found in checkpoints_in(run.checkpoints, hashes=True)] == [4]
    assert saved_events(tmp_path) == [4]


def test_a_stop_waits_for_the_save_that_is_under_way(tmp_path: Path, gate: threading.Event) -> None:
    def then(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), 15)
            threading.Timer(0.5, gate.set).start()

    run = toy_run(tmp_path, SETTINGS)
    with pytest.raises(Stopped, match="stopped at step 5, checkpoint saved"):
        toy_train(run, Watched(run, then))
    assert [found.step for found in checkpoints_in(run.checkpoints, hashes=True)] == [4, 5]


def test_no_tensor_is_read_again_to_hash_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, read = files._digest, []
    monkeypatch.setattr(files, "_digest", lambda file: read.append(Path(file.name).name) or digest(file))
    run = toy_run(tmp_path, {**SETTINGS, "checkpoint": {"every_steps": 1, "keep": 3, "resumable": 1}})
    toy_train(run)
    assert set(read) == {"state.json", "rng-0.safetensors"}
    assert [found.step for found in checkpoints_in(run.checkpoints, hashes=True)] == [10, 11, 12]
    assert {"model.safetensors"} < set(read)


@pytest.mark.stand_in
def test_without_host_memory_for_a_copy_training_waits_and_the_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = toy_run(tmp_path / "whole", SETTINGS)
    toy_train(whole)
    monkeypatch.setattr(host_memory, "available", lambda: 100 * 2**20)
    short = toy_run(tmp_path / "short", SETTINGS)
    toy_train(short, Watched(short, lambda step: _all_written(short)))
    assert (
        "MiB of host memory and 100 MiB are free: training waits while the checkpoint is written"
        in capsys.readouterr().out
    )
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (run.checkpoints / "step-000012" / file for run in (whole, short))
        assert one.read_bytes() == other.read_bytes()
    assert saved_events(tmp_path / "short") == [4, 8, 12]


def _all_written(run: Run) -> None:
    assert not list(run.checkpoints.glob(".tmp-*")), "a step was begun before the checkpoint was complete"


@pytest.mark.parametrize("short", [False, True], ids=["in the background", "while training waits"])
def test_a_disk_that_fills_in_the_middle_of_a_write_costs_the_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    if short:
        monkeypatch.setattr(host_memory, "available", lambda: 1)
    run = toy_run(tmp_path, SETTINGS)
    run.checkpoints.parent.mkdir(parents=True, exist_ok=True)
    with small_disk(run.checkpoints, "size=300m") as disk:

        def then(step: int) -> None:
            if step == 12:
                assert not (disk / "step-000008").exists()
                (disk / "ballast").unlink()

        _, outcome = toy_train(run, Watched(run, then), extras=lambda folder: fill_at(8, folder))
        assert outcome.progress.step == 12
        assert [found.step for found in checkpoints_in(disk, hashes=True)] == [4, 12]
        assert sorted(path.name for path in disk.iterdir()) == ["step-000004", "step-000012"]
    (flag,) = flags(tmp_path)
    assert flag[0] == "disk_full"
    assert flag[1].startswith("step-000008 could not be saved: [Errno 28] No space left on device")
    assert saved_events(tmp_path) == [4, 12]


def test_a_disk_that_fills_while_the_model_is_written_costs_the_model_and_not_the_run(tmp_path: Path) -> None:
    run = toy_run(tmp_path, SETTINGS)
    (tmp_path / "outputs").mkdir(exist_ok=True)
    with small_disk(run.best.parent, "size=1m") as disk:
        with model_folder(run) as folder:
            (folder / "earlier").write_text("model")
        fill(disk)
        with model_folder(run) as folder:
            tiny_model("llama").save_pretrained(folder)
        assert [path.name for path in disk.iterdir() if path.name != "ballast"] == ["best"]
        assert (run.best / "earlier").read_text() == "model" and read_manifest(run.best, hashes=True)
        (disk / "ballast").unlink()
        with model_folder(run) as folder:
            tiny_model("llama").save_pretrained(folder)
        assert (run.best / "model.safetensors").exists() and read_manifest(run.best, hashes=True)
    ((name, message),) = flags(tmp_path)
    assert name == "disk_full" and "No space left on device" in message


def test_the_grace_follows_from_the_size_and_the_slowest_disk(tmp_path: Path) -> None:
    grace, file = Grace(tmp_path / "grace.json"), tmp_path / "grace.json"
    gigabyte = 10**9
    grace.tell(gigabyte)
    assert json.loads(file.read_text()) == {"seconds": LEAST}
    grace.tell(44 * gigabyte, step=3.0)
    assert json.loads(file.read_text()) == {"seconds": round(SPARE + 3 + 2 * 44e9 / DISK_SPEED, 1)}
    grace.measured(1000, 1.0)  # too small to say anything
    grace.measured(44 * gigabyte, 44.0)
    grace.tell(44 * gigabyte)
    assert grace.seconds == SPARE + 2 * 44
    grace.measured(44 * gigabyte, 440.0)
    grace.measured(44 * gigabyte, 44.0)
    grace.tell(44 * gigabyte)
    assert grace.seconds == SPARE + 2 * 440


def test_a_run_that_gpurun_launched_tells_its_grace_before_the_first_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPURUN_RUN_DIR", str(tmp_path))
    monkeypatch.setattr("remote_payload.train.state.grace.DISK_SPEED", 1000.0)
    told: list[float] = []
    run = toy_run(tmp_path, SETTINGS)
    toy_train(run, Watched(run, lambda step: told.append(json.loads((tmp_path / "grace.json").read_text())["seconds"])))
    files = [load_file(path) for path in (run.checkpoints / "step-000012").glob("[mo]*.safetensors")]
    size = sum(tensor.nbytes for file in files for tensor in file.values())
    assert told[0] == pytest.approx(SPARE + 2 * size / 1000, rel=0.02)
