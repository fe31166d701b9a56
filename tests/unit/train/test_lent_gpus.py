"""A job that asks for GPUs ends where torch cannot use them, with the reason."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from remote_payload.train import lent_gpus
from remote_payload.train.errors import TrainingError
from remote_payload.train.lent_gpus import Driver, read_driver, require_lent_gpus

LENT = {"GPURUN_RUN_DIR": "x"}
ONE: dict[str, object] = {"resources": {"gpus": 1}}


@pytest.fixture(autouse=True)
def nothing_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPURUN_RUN_DIR", "CUDA_VISIBLE_DEVICES", "GPURUN_FAKE_GPUS"):
        monkeypatch.delenv(name, raising=False)


def refusal(monkeypatch: pytest.MonkeyPatch, job: dict[str, object], **variables: str) -> str | None:
    """What a run with these variables ends with."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        require_lent_gpus(job)
    except TrainingError as error:
        return str(error)
    return None


@pytest.mark.stand_in
@pytest.mark.parametrize(
    ("variables", "job", "lent"),
    [
        ({**LENT, "CUDA_VISIBLE_DEVICES": "0,2"}, {}, 2),
        (LENT, ONE, 1),
        (LENT, {"resources": {"gpus": "all"}}, 1),
        ({**LENT, "CUDA_VISIBLE_DEVICES": ""}, {"resources": {"gpus": 0}}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, ONE, 1),  # by hand
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ONE, 0),  # who hides the GPUs means the CPU
        ({"CUDA_VISIBLE_DEVICES": "0"}, {}, 0),
        ({}, {"resources": {"gpus": 0}}, 0),
    ],
)
def test_a_run_with_gpus_does_not_train_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], job: dict[str, object], lent: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refusal(monkeypatch, job, **variables)
    assert (said is not None) is (lent > 0)
    if said:
        assert f" {lent} GPU{'s' * (lent > 1)}, torch {torch.__version__} can use 0: " in said
        assert "does not train on the CPU instead; resources: {gpus: 0} would" in said


@pytest.mark.stand_in
def test_fewer_gpus_than_were_lent_are_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert refusal(monkeypatch, ONE, **LENT, CUDA_VISIBLE_DEVICES="3") is None
    said = refusal(monkeypatch, ONE, **LENT, CUDA_VISIBLE_DEVICES="0,3")
    assert said is not None and "can use 1: CUDA_VISIBLE_DEVICES is 0,3" in said


@pytest.mark.stand_in
@pytest.mark.parametrize(
    ("built_for", "driver", "reason"),
    [
        (None, None, "this torch is a CPU build (torch.version.cuda is None). Leave out environment.interpreter"),
        ("13.0", Driver(2, (12, 6)), "NVML sees 2 GPUs, the driver runs CUDA 12.6, this torch is built for 13.0"),
        ("12.8", Driver(1, (12, 4)), "error 802 (NVML sees 1 GPU and a driver for CUDA 12.4: take another box)"),
        ("12.8", None, "error 802 (NVML does not answer either: this container has no working NVIDIA driver)"),
    ],
)
def test_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, built_for: str | None, driver: Driver | None, reason: str
) -> None:
    def init() -> None:
        raise RuntimeError("error 802.\nand more lines")

    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(lent_gpus, "read_driver", lambda: driver)
    said = refusal(monkeypatch, ONE, **LENT)
    assert said is not None and reason in said and "\n" not in said


class Nvml:
    """The three functions of libnvidia-ml.so.1 that are called, for two GPUs and CUDA 12.6."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def nvmlInit_v2(self) -> int:
        return 9 if self.fails else 0

    def nvmlDeviceGetCount_v2(self, count: ctypes.c_void_p) -> int:
        count._obj.value = 2  # type: ignore[attr-defined]
        return 0

    def nvmlSystemGetCudaDriverVersion_v2(self, version: ctypes.c_void_p) -> int:
        version._obj.value = 12060  # type: ignore[attr-defined]
        return 0


@pytest.mark.stand_in
def test_the_driver_is_read_from_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvml(fails=False))
    assert read_driver() == Driver(2, (12, 6))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvml(fails=True))
    assert read_driver() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_recipe_without_its_gpu_ends_at_once_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"recipe": "sft", "settings": {"model": "m", "train": "t"}}))
    places = {"GPURUN_RUN_DIR": str(tmp_path), "GPURUN_OUTPUTS": str(tmp_path / "o"), "CUDA_VISIBLE_DEVICES": "0"}
    command = [sys.executable, "-m", "remote_payload.recipes.sft"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **places})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: this run was lent 1 GPU, torch ") and not (tmp_path / "o").exists()
    if torch.version.cuda is None:
        assert "can use 0: this torch is a CPU build" in done.stderr
