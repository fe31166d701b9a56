"""What a lying or broken box sends home is refused by ``gpurun smoke-test``, and nothing of it runs."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.cli import Gpurun
from tests.support.models.smoke_models import Canary, change_tensor, classifier_run, record_fetched


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    classifier_run(root, "gemma3")
    return root


@pytest.fixture
def gpurun(tmp_path: Path) -> Gpurun:
    """The command, with a state of its own and no embedded box."""
    return Gpurun(tmp_path / "home", {"HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"})


@pytest.fixture
def root(gpurun: Gpurun, trained: Path, tmp_path: Path) -> Path:
    """A fetched run that may be spoilt."""
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    record_fetched(gpurun.home, copy, copy)
    return copy


HUGE = {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "head.safetensors", "smoke/expected.safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", len(json.dumps(HUGE))) + json.dumps(HUGE).encode(),
    ],
    ids=["all ones", "a header of 4 EiB", "a tensor of 4 TiB"],
)
def test_53_an_absurd_safetensors_header_is_refused(gpurun: Gpurun, root: Path, name: str, content: bytes) -> None:
    (root / "models/best" / name).write_bytes(content)
    done = gpurun("smoke-test", check=6)
    assert f"{name} is not a valid safetensors file" in done.stderr and "passed" not in done.stdout


def test_54_pickles_and_code_in_the_folder_are_never_run(gpurun: Gpurun, root: Path, tmp_path: Path) -> None:
    """Canaries wherever a library might look: pickles by their usual names, modules by the libraries' names."""
    best, ran = root / "models/best", tmp_path / "ran"
    for name in ("adapter_model.bin", "pytorch_model.bin", "training_args.bin", "head.pt"):
        (best / name).write_bytes(pickle.dumps(Canary(ran)))
    for name in ("modeling_evil.py", "transformers.py", "torch.py", "sitecustomize.py", "head.py"):
        (best / name).write_text(f"open({str(ran)!r}, 'w')\n")
    done = gpurun("smoke-test", "--device", "cpu")
    assert "never opened, since they are pickles" in done.stderr and done.stdout.rstrip().endswith("passed")
    assert not ran.exists()


EVIL = {"auto_map": {"AutoModel": "modeling_evil.Model", "AutoConfig": "modeling_evil.Config"}, "model_type": "evil"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_54_a_model_that_brings_its_own_code_is_refused(gpurun: Gpurun, root: Path, tmp_path: Path, name: str) -> None:
    best, ran = root / "models/best", tmp_path / "ran"
    (best / "modeling_evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (best / name).write_text(json.dumps(EVIL))
    assert f"{name} names code to be run" in gpurun("smoke-test", check=6).stderr
    assert not ran.exists()


def test_54_weights_that_are_only_a_pickle_are_refused(gpurun: Gpurun, root: Path, tmp_path: Path) -> None:
    best, ran = root / "models/best", tmp_path / "ran"
    (best / "adapter_model.safetensors").unlink()
    (best / "adapter_model.bin").write_bytes(pickle.dumps(Canary(ran)))
    assert "no adapter_model.safetensors" in gpurun("smoke-test", check=6).stderr
    assert not ran.exists()


def test_54_a_base_model_of_the_boxs_choice_is_refused(gpurun: Gpurun, root: Path) -> None:
    file = root / "models/best/adapter_config.json"
    value: dict[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps({**value, "base_model_name_or_path": "evil/base"}))
    assert "wants 'evil/base' as its base model" in gpurun("smoke-test", check=6).stderr


def test_54_a_link_out_of_the_folder_is_refused(gpurun: Gpurun, root: Path, tmp_path: Path) -> None:
    (tmp_path / "id_ed25519").write_text("secret")
    (root / "models/best/vocab.txt").symlink_to(tmp_path / "id_ed25519")
    assert "vocab.txt is a link" in gpurun("smoke-test", check=6).stderr


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "head.safetensors"])
def test_55_weights_that_are_nan_fail(gpurun: Gpurun, root: Path, name: str) -> None:
    change_tensor(root / "models/best" / name, "weight", lambda tensor: tensor.fill_(float("nan")))
    assert "holds NaN or infinity" in gpurun("smoke-test", check=6).stderr


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has Metal")
def test_56_metal_that_is_not_there_is_never_passed(gpurun: Gpurun, root: Path) -> None:
    done = gpurun("smoke-test", "--device", "mps", check=6)
    assert "no Metal (MPS) on this machine, so nothing was tested" in done.stderr
    assert "passed" not in done.stdout + done.stderr
