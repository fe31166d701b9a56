"""Folders from a hostile box: nothing in them is run or unpickled, and no link is followed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from runner.domain.errors import SmokeTestFailed
from runner.local_model.inspect import inspect
from tests.support.models.smoke_models import Canary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with nothing wrong in it."""
    here = tmp_path / "best"
    (here / "smoke").mkdir(parents=True)
    (here / "config.json").write_text('{"model_type": "bert"}')
    save_file({"w": torch.zeros(3)}, here / "model.safetensors")
    save_file({"logits": torch.zeros(1, 2)}, here / "smoke/expected.safetensors")
    return here


def test_a_sound_folder_is_described(folder: Path) -> None:
    found = inspect(folder)
    assert found.configs["config.json"] == {"model_type": "bert"}
    assert found.elements == 3
    assert set(found.files) == {"config.json", "model.safetensors", "smoke/expected.safetensors"}


def test_pickles_beside_safetensors_are_named_and_never_opened(folder: Path, tmp_path: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pkl", "RNG.PTH", "x.joblib"):
        (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    os.chmod(folder / "optimizer.pt", 0)
    assert set(inspect(folder).pickles) == {"training_args.bin", "optimizer.pt", "scheduler.pkl", "RNG.PTH", "x.joblib"}
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_only_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    with pytest.raises(SmokeTestFailed, match="are pickles") as refused:
        inspect(folder)
    assert refused.value.exit_code == 6
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}),
        ("config.json", {"layers": [{"x": 1}, {"auto_map": None}]}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("config.json", {"trust_remote_code": True}),
        ("config.json", {"_attn_implementation": "evil/kernels"}),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "os"}}),
        ("adapter_config.json", {"megatron_config": {"a": 1}, "megatron_core": "os"}),
    ],
)
def test_a_configuration_that_leads_to_code_is_refused(folder: Path, file: str, content: dict[str, Any]) -> None:
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(SmokeTestFailed, match="names code to be run"):
        inspect(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"trust_remote_code": False, "_attn_implementation": "sdpa"}),
        ("adapter_config.json", {"auto_mapping": None, "megatron_config": None, "megatron_core": "megatron.core"}),
        ("vocab.json", {"auto_map": 7}),
    ],
)
def test_a_configuration_that_only_looks_like_it_is_not(folder: Path, file: str, content: dict[str, Any]) -> None:
    (folder / file).write_text(json.dumps(content))
    inspect(folder)


def test_links_pipes_and_sockets_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    for name, make in {
        "out.json": lambda path: path.symlink_to(tmp_path / "secret.json"),
        "outside": lambda path: path.symlink_to(tmp_path),
        "dangling": lambda path: path.symlink_to("nowhere"),
        "pipe.json": lambda path: os.mkfifo(path),
    }.items():
        make(folder / name)
        with pytest.raises(SmokeTestFailed, match=f"{name} is (a link|no regular file)"):
            inspect(folder)
        (folder / name).unlink()
    inspect(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b" " * (8 << 20) + b"{}"], ids=len)
def test_json_that_is_none_or_too_large_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(SmokeTestFailed, match=r"config\.json (is not JSON|has over)"):
        inspect(folder)


def test_an_absurd_safetensors_header_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(SmokeTestFailed, match=r"model\.safetensors is not a valid safetensors file: it claims"):
        inspect(folder)


@pytest.mark.parametrize("shard", ["../../other.safetensors", "/etc/passwd", "gone.safetensors", "config.json"])
def test_an_index_may_only_name_weights_of_its_own_folder(folder: Path, shard: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(SmokeTestFailed, match="which is not there"):
        inspect(folder)


def test_names_with_escapes_do_not_reach_the_terminal(folder: Path) -> None:
    (folder / "\x1b]52;c;aGk=\x07.json").write_text("{")
    with pytest.raises(SmokeTestFailed) as refused:
        inspect(folder)
    assert "\x1b" not in str(refused.value) and "\x07" not in str(refused.value)


def test_endless_folders_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.local_model.inspect.MAX_FILES", 20)
    for number in range(30):
        (folder / f"{number}.txt").touch()
    with pytest.raises(SmokeTestFailed, match="more than 20 files"):
        inspect(folder)
