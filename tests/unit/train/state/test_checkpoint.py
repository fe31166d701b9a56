from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from remote_payload.train.errors import InputError, Stopped
from remote_payload.train.folders import complete_folder
from remote_payload.train.state.checkpoint import checkpoints_in, find_checkpoint, prune_checkpoints
from tests.support.models.tiny_models import tiny_model
from tests.support.models.toy_training import ToyTask, toy_run, toy_train

SETTINGS = {"dropout": 0.3, "epochs": 4, "checkpoint": {"every_steps": 2, "keep": 10}, "batch": {"size": 8, "micro": 4}}


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "outputs/checkpoints/step-000012/model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def toy_process(folder: Path, settings: dict[str, Any], resume: str | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"GPURUN_RESUME": resume} if resume else {})}
    command = [sys.executable, "-m", "tests.support.models.toy_training", str(folder), json.dumps(settings)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def test_a_run_killed_in_the_middle_of_a_save_goes_on_bit_for_bit_as_if_it_had_not_been(tmp_path: Path) -> None:
    _, whole = toy_train(toy_run(tmp_path / "whole", SETTINGS))
    killed = tmp_path / "killed"
    saves = killed / "outputs/checkpoints"
    process = toy_process(killed, {**SETTINGS, "hold_save_at": 6})
    deadline = time.monotonic() + 60
    while not (saves / ".tmp-step-000006" / "held").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert (saves / ".tmp-step-000006" / "optimizer.safetensors").exists(), "not in the middle of a save"
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert [found.step for found in checkpoints_in(saves)] == [2, 3, 4], "a torn save counts"

    _, rest = toy_train(toy_run(killed, SETTINGS, resume="auto"))
    assert rest.losses == whole.losses[4:]
    assert same(final_weights(killed), final_weights(tmp_path / "whole"))
    assert not list(saves.glob(".tmp-*")), "the torn save is still there"


def test_a_run_stopped_by_sigterm_goes_on_bit_for_bit(tmp_path: Path) -> None:
    class StopsAtFive(ToyTask):
        taken = 0

        def micro_batches(self, step: Any, size: int) -> Any:
            self.taken += 1
            if self.taken == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().micro_batches(step, size)

    _, whole = toy_train(toy_run(tmp_path / "whole", SETTINGS))
    run = toy_run(tmp_path / "stopped", SETTINGS)
    with pytest.raises(Stopped):
        toy_train(run, StopsAtFive(run))
    _, rest = toy_train(toy_run(tmp_path / "stopped", SETTINGS, resume="step-000005"))
    assert rest.losses == whole.losses[5:]
    assert same(final_weights(tmp_path / "stopped"), final_weights(tmp_path / "whole"))
    assert rest.progress.evaluations[-1]["metrics"] == whole.progress.evaluations[-1]["metrics"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    toy_train(toy_run(folder, SETTINGS))
    return folder / "outputs/checkpoints"


def test_a_checkpoint_is_safetensors_and_json_only(trained: Path) -> None:
    names = {path.name for path in (trained / "step-000004").iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "rng-0.safetensors", "state.json", "manifest.json"}
    state = json.loads((trained / "step-000004" / "state.json").read_text())
    assert (state["step"], state["epoch"], state["step_in_epoch"]) == (4, 1, 1)


def test_auto_is_the_latest_whole_checkpoint_and_nothing_in_an_empty_folder(trained: Path, tmp_path: Path) -> None:
    assert find_checkpoint("auto", tmp_path) is None
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    assert find_checkpoint("auto", copy) == copy / "step-000012"
    with (copy / "step-000012" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert find_checkpoint("auto", copy) == copy / "step-000010", "one flipped bit passes for whole"


def test_a_checkpoint_is_found_by_name_and_by_path(trained: Path) -> None:
    assert find_checkpoint("step-000006", trained) == trained / "step-000006"
    assert find_checkpoint(str(trained / "step-000006"), Path("/nowhere")) == trained / "step-000006"
    assert find_checkpoint("latest", trained) == trained / "step-000012"


def test_a_wrong_name_lists_the_checkpoints_that_exist(trained: Path) -> None:
    with pytest.raises(
        InputError, match=r"there is no checkpoint step-9; checkpoints in .*: step-000002, step-000003, "
    ):
        find_checkpoint("step-9", trained)


def test_a_checkpoint_of_another_model_is_refused_by_name(trained: Path, tmp_path: Path) -> None:
    from remote_payload.train.state.checkpoint import load_weights

    with pytest.raises(InputError, match="step-000012 is a checkpoint of another model"):
        load_weights(trained / "step-000012", tiny_model("gpt2"))


def saved(folder: Path, step: int, **metrics: float) -> None:
    with complete_folder(folder / f"step-{step:06d}", step=step, metrics=metrics) as temporary:
        (temporary / "model.safetensors").write_bytes(b"x" * 100)


@pytest.mark.parametrize(
    ("losses", "keep", "higher", "left"),
    [
        ([3.0, 1.0, 2.0, 4.0], 2, False, [2, 3, 4]),
        ([3.0, 1.0, 2.0, 4.0], 2, True, [3, 4]),
        ([3.0, 1.0, 2.0, 4.0], 1, False, [2, 4]),
        ([1.0, 1.0, 1.0], 1, False, [1, 3]),
        ([3.0, 2.0], None, False, [1, 2]),
    ],
)
def test_the_latest_and_the_best_are_kept(
    tmp_path: Path, losses: list[float], keep: int | None, higher: bool, left: list[int]
) -> None:
    for step, loss in enumerate(losses, start=1):
        saved(tmp_path, step, loss=loss)
    prune_checkpoints(tmp_path, keep, "loss", higher)
    assert [found.step for found in checkpoints_in(tmp_path)] == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:06d}" for step in left]


def test_old_checkpoints_stay_while_the_newest_is_not_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, step)
    (tmp_path / "step-000003" / "model.safetensors").write_bytes(b"y" * 100)
    assert prune_checkpoints(tmp_path, 1, "loss", False) == []
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    _, outcome = toy_train(toy_run(tmp_path, SETTINGS))
    assert outcome.progress.step == 12
    assert checkpoints_in(tmp_path / "outputs/checkpoints") == []
    flags = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines() if '"flag"' in line]
    assert "are free" in flags[0]["message"]
