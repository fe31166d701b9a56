from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from remote_payload.train.distributed import World, buckets
from tests.support.box import small_disk
from tests.support.models.toy_training import toy_run, toy_train

CONSTANT = {"schedule": {"name": "constant", "warmup": 0}, "optimizer": {"learning_rate": 3e-3}}


def torchrun(folder: Path, settings: dict[str, object], ranks: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*launcher, "-m", "tests.support.models.toy_training", str(folder), json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "outputs/checkpoints/step-000006/model.safetensors")


def test_a_model_cut_over_two_ranks_learns_what_a_whole_one_does_and_its_checkpoint_is_whole(tmp_path: Path) -> None:
    # MicroBatch-batches of 3 give each rank's share of 4 rows as 3 + 1, so ranks are in step through padding of unlike length.
    _, outcome = toy_train(toy_run(tmp_path / "whole", {**CONSTANT, "batch": {"size": 8, "micro": 8}}))
    done = torchrun(tmp_path / "cut", {**CONSTANT, "batch": {"size": 8, "micro": 3}, "sharded": True})
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "cut" / "losses.json").read_text()) == pytest.approx(outcome.losses, abs=5e-5)
    whole, cut = final_weights(tmp_path / "whole"), final_weights(tmp_path / "cut")
    assert set(whole) == set(cut)
    for name, tensor in whole.items():
        assert torch.allclose(cut[name], tensor, atol=2e-4), name


@pytest.mark.parametrize("no_host_memory", [False, True], ids=["in the background", "while training waits"])
def test_a_disk_that_fills_while_a_sharded_model_is_written_costs_the_checkpoint_and_not_the_run(
    tmp_path: Path, no_host_memory: bool
) -> None:
    settings = {**CONSTANT, "sharded": True, "full_disk_at": 4, "no_host_memory": no_host_memory}
    (tmp_path / "outputs").mkdir()
    with small_disk(tmp_path / "outputs/checkpoints", "size=300m") as disk:
        done = torchrun(tmp_path, {**settings, "batch": {"size": 8, "micro": 4}, "checkpoint": {"every_steps": 2}})
        assert done.returncode == 0, done.stderr
        assert "step-000004 could not be saved: [Errno 28] No space left on device" in done.stdout
        assert ("training waits while the checkpoint is written" in done.stdout) == no_host_memory
        left = [path.name for path in disk.iterdir() if path.name != "ballast"]
        assert "step-000002" in left and "step-000004" not in left and not any(name.startswith(".") for name in left)


@pytest.mark.stand_in
def test_when_one_rank_runs_out_of_memory_all_redo_the_step(tmp_path: Path) -> None:
    _, outcome = toy_train(toy_run(tmp_path / "alone", {**CONSTANT, "batch": {"size": 8, "micro": 8}}))
    done = torchrun(tmp_path / "two", {**CONSTANT, "batch": {"size": 8, "micro": 4}, "oom_on_rank": 1})
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "losses.json").read_text()) == pytest.approx(outcome.losses, abs=5e-5)
    events = [json.loads(line) for line in (tmp_path / "two" / "events.jsonl").read_text().splitlines()]
    (oom,) = [event for event in events if event["type"] == "oom"]
    assert (oom["step"], oom["micro_batch_before"], oom["micro_batch_after"]) == (1, 4, 2)


@pytest.mark.stand_in
def test_when_one_rank_of_a_sharded_model_runs_out_of_memory_all_end_at_once(tmp_path: Path) -> None:
    done = torchrun(tmp_path, {**CONSTANT, "batch": {"size": 8, "micro": 4}, "sharded": True, "oom_on_rank": 1})
    assert done.returncode != 0
    assert "error: out of GPU memory with a sharded model" in done.stderr and "set a smaller batch.micro" in done.stderr


def test_when_a_rank_dies_all_end_and_its_traceback_is_the_only_one(tmp_path: Path) -> None:
    done = torchrun(tmp_path, {"fail_on_rank": 1})
    assert done.returncode != 0
    assert "RuntimeError: the toy was told to fail on rank 1" in done.stderr
    assert done.stderr.count("in exit_code") == 1, "the other rank's traceback buries the cause"


def test_gradients_travel_in_pieces_of_one_dtype_and_every_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_payload.train.distributed.BUCKET_BYTES", 100)
    sizes = [(10, torch.float32), (10, torch.float32), (20, torch.float32), (5, torch.bfloat16), (200, torch.float32)]
    parameters = [torch.nn.Parameter(torch.zeros(n, dtype=dtype)) for n, dtype in sizes]
    assert [[p.numel() for p in bucket] for bucket in buckets(parameters)] == [[10, 10], [20], [5], [200]]


def test_alone_every_collective_is_the_value_itself() -> None:
    world = World(0, 1, 0, torch.device("cpu"))
    assert (world.sum(1, 2.5), world.max(3), world.any(False), world.any(True)) == ([1.0, 2.5], [3.0], False, True)
    assert (world.broadcast("x"), world.gather(4), world.share([1, 2, 3])) == ("x", [4], [1, 2, 3])


def test_a_list_is_dealt_out_so_that_each_item_has_one_rank() -> None:
    shares = [World(rank, 3, rank, torch.device("cpu")).share(list(range(8))) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_each_rank_waits_for_its_device_once_a_step_however_many_micro_batches_it_has(
    tmp_path: Path, kind: str
) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.support.models.waits_of_ranks", str(tmp_path), kind],
        capture_output=True, text=True, timeout=150, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        steps = json.loads((tmp_path / f"waits-{rank}.json").read_text())
        assert len(steps) == 3 and len({batches for batches, _ in steps}) > 1
        assert all(len(places) == 1 for _, places in steps), steps
