"""A job that asks for GPUs does not end up on the CPU: check and submit stop before the push, and a run that starts all the same ends.

The GPU and its driver are stand-ins; the interpreters and the build of torch without CUDA are real.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun

GPU = {
    "number": 0,
    "uuid": "GPU-1",
    "name": "NVIDIA H100",
    "memory_total": 80 << 30,
    "memory_used": 0,
    "utilisation": 0,
}
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Wed Jan  8 05:00:00 UTC 2025\n"
CPU_BUILD = f"torch {torch.__version__} is a CPU build"
pytestmark = [
    pytest.mark.stand_in,
    pytest.mark.skipif(torch.version.cuda is not None, reason="the torch of these tests must be a CPU build"),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a job of the ``sft`` recipe that runs in a given interpreter, by default the one of these tests."""

    def write(interpreter: str = sys.executable, gpus: int = 1) -> Path:
        folder = tmp_path / "project"
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "model" / "config.json").write_text("{}")
        (folder / "train.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
        job = {
            "name": "gpu-job", "recipe": "sft", "data": ["model", "train.jsonl"], "resources": {"gpus": gpus},
            "settings": {"model": "model", "train": "train.jsonl", "prompt_template": "{prompt}"},
            "environment": {"interpreter": interpreter},
        }  # fmt: skip
        (folder / "job.yaml").write_text(json.dumps(job))
        return folder / "job.yaml"

    return write


@pytest.fixture
def with_gpu(box: Box, tmp_path: Path) -> Callable[..., None]:
    """Makes the box look as if it had a GPU, and with ``driver`` a driver for CUDA 12 too."""

    def configure(driver: bool) -> None:
        (tmp_path / "gpus.json").write_text(json.dumps([GPU]))
        (tmp_path / "driver").write_text(DRIVER)
        more = {"GPURUN_FAKE_DRIVER": str(tmp_path / "driver")} if driver else {}
        box.configure(GPURUN_FAKE_GPUS=str(tmp_path / "gpus.json"), **more)

    return configure


def findings(checked: dict[str, list[dict[str, str]]], verdict: str) -> dict[str, str]:
    return {each["what"]: each["said"] for each in checked["findings"] if each["verdict"] == verdict}


def test_a_given_interpreter_whose_torch_has_no_cuda_stops_check_and_submit(
    gpurun: Gpurun, box: Box, recipe: Callable[..., Path], with_gpu: Callable[..., None]
) -> None:
    with_gpu(driver=True)
    checked = gpurun.json("check", str(recipe()), "--host", box.address(), check=3)
    assert findings(checked, "fail") == {
        "Python": f"the torch of {sys.executable} cannot use the GPU: {CPU_BUILD}",
    }
    refused = gpurun("submit", str(recipe()), "--host", box.address(), check=3)
    assert CPU_BUILD in refused.stderr and "Leave out environment.interpreter" in refused.stderr
    assert "Nothing was pushed or started" in refused.stderr and not list(box.root.glob("runs/*"))
    on_cpu = gpurun.json("check", str(recipe(gpus=0)), "--host", box.address())
    assert findings(on_cpu, "ok")["Python"] == f"{sys.executable} has what the job requires"


def test_packages_that_a_given_interpreter_lacks_stop_check_and_submit_with_the_command_that_installs_them(
    gpurun: Gpurun, box: Box, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)
    python = f"{bare}/bin/python"
    for words in (["check"], ["submit"], ["submit", "--dry-run"]):
        refused = gpurun(*words, str(recipe(python, gpus=0)), "--host", box.address(), check=3)
        said = " ".join((refused.stdout + refused.stderr).split())
        assert f"{python} lacks torch>=" in said and "peft>=" in said
        assert f"{python} -m pip install 'torch>=" in said and "leave out environment.interpreter" in said
    assert not list(box.root.glob("runs/*")) and not list(box.root.glob("data/*"))


def test_a_run_that_starts_without_its_gpu_ends_at_once_and_its_status_says_why(
    gpurun: Gpurun, recipe: Callable[..., Path], with_gpu: Callable[..., None], tmp_path: Path
) -> None:
    with_gpu(driver=False)  # the box knows of no driver, so only the run can notice
    real = tmp_path / "python"  # takes the GPU for a real one
    real.write_text(f'#!/bin/sh\nunset GPURUN_FAKE_GPUS\nexec {sys.executable} "$@"\n')
    real.chmod(0o755)
    run = gpurun.submit(recipe(str(real)))
    assert "this torch is a CPU build (torch.version.cuda is None)" in gpurun("logs", "-f", check=10).stdout
    status = gpurun.json("status", run)["status"]
    assert (status["outcome"], status["cause"]) == ("failed", "gpu_unusable")
    assert "was lent 1 GPU" in status["evidence"] and "environment.interpreter" in status["advice"]
