"""The torch of an interpreter, by its files and by its own answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from remote_payload.agent.box.pythons import interpreters, torch_build
from remote_payload.agent.box.pythons.interpreters import Interpreter, Lacks
from remote_payload.agent.box.pythons.requirement import parse
from remote_payload.agent.box.pythons.torch_build import TorchBuild
from tests.unit.agent.box.test_interpreters import distribution, with_torch

NO_TORCH = "import sys; print('banner'); sys.exit('boom')"


def test_a_build_is_read_from_its_files(tmp_path: Path) -> None:
    with_torch(tmp_path / "gpu", "2.11.0+cu128", "'12.8'")
    with_torch(tmp_path / "cpu", "2.13.0+cpu", "None")
    (tmp_path / "empty").mkdir()
    sites = [str(tmp_path / name) for name in ("empty", "gpu", "cpu")]
    assert torch_build.read(sites) == TorchBuild("2.11.0+cu128", "12.8")
    assert torch_build.read(sites[2:]) == TorchBuild("2.13.0+cpu", None)
    assert torch_build.read(sites[:1]) is None


@pytest.mark.parametrize(
    ("cuda", "driver", "why"),
    [
        (None, 12, "torch 2.9 is a CPU build"),
        ("13.0", 12, "torch 2.9 is built for CUDA 13.0, the driver 560.35.03 runs CUDA 12"),
        ("12.8", 12, None),
        ("11.8", 13, None),
        (None, None, None),
    ],
)
def test_a_build_that_the_driver_does_not_run_is_told_with_its_reason(
    cuda: str | None, driver: int | None, why: str | None
) -> None:
    assert torch_build.unfit(TorchBuild("2.9", cuda), driver, "560.35.03") == why


def test_what_an_interpreter_lacks_tells_versions_and_builds_apart(tmp_path: Path) -> None:
    interpreter = with_torch(tmp_path / "site", cuda="None")
    distribution(tmp_path / "site", "six", "1.10")
    wanted = parse("torch>=2.6\nsix>=1.16\npeft")
    assert interpreters.lacks(interpreter, wanted, None) == Lacks(["six>=1.16", "peft"], None)
    assert interpreters.lacks(interpreter, wanted, 12) == Lacks(["six>=1.16", "peft"], "torch 2.13.0 is a CPU build")
    assert interpreters.lacks(interpreter, parse("torch>=3"), 12) == Lacks(["torch>=3"], None)
    assert interpreters.lacks(interpreter, parse("six"), 12) == Lacks([], None)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is no CPU build")
def test_torch_itself_says_that_it_cannot_use_a_gpu() -> None:
    asked = torch_build.ask(sys.executable)
    assert asked.gpus == 0 and "not compiled with CUDA" in asked.why


def test_an_interpreter_without_an_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{NO_TORCH}"\n')
    program.chmod(0o755)
    with pytest.raises(ValueError, match="boom"):
        torch_build.ask(str(program))
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(torch_build, "LIMIT", 0.2)
    with pytest.raises(ValueError, match="not imported"):
        torch_build.ask(str(program))


@pytest.mark.stand_in
def test_the_driver_of_a_test_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Wed Jan  8 2025\n")
    monkeypatch.setenv(interpreters.STAND_IN, str(tmp_path / "version"))
    assert (interpreters.driver_release(), interpreters.driver_cuda()) == ("560.35.03", 12)
    here = interpreters.ask(sys.executable)
    assert isinstance(here, Interpreter)
