"""Which folders hold a model, and what each is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from runner.domain.errors import SmokeTestFailed
from runner.local_model.model_folder import find_models, read_model_folder

ABOUT = {
    "format": 1,
    "kind": "classifier",
    "base": {"id": "acme/base", "revision": "c" * 40, "path": None},
    "labels": ["a", 2],
    "max_length": 64,
    "dtype": "bfloat16",
}


def model(folder: Path, **files: Any) -> Path:
    """A folder with weights and these JSON files (``__`` in a name is a dot)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(json.dumps(content))
    save_file({"w": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def test_a_folder_that_is_a_model_is_the_only_one(tmp_path: Path) -> None:
    for name in ("gpurun__json", "config__json", "adapter_config__json"):
        root = model(tmp_path / name, **{name: {}})
        model(root / "other", config__json={})
        assert find_models(root) == [root]


def test_models_of_a_run_are_found_and_checkpoints_left_out(tmp_path: Path) -> None:
    best = model(tmp_path / "models/best", gpurun__json=ABOUT)
    last = model(tmp_path / "models/last", gpurun__json=ABOUT)
    model(tmp_path / "checkpoints/step-000500", gpurun__json=ABOUT)
    model(tmp_path / "models/encoder", config__json={})
    (tmp_path / "models/link").symlink_to(best)
    assert find_models(tmp_path) == [best, last]


def test_a_run_of_ones_own_program_has_plain_models(tmp_path: Path) -> None:
    plain = model(tmp_path / "out/model", config__json={})
    assert find_models(tmp_path) == [plain]


@pytest.mark.parametrize("content", ["", "log.txt"])
def test_a_folder_without_a_model_says_so(tmp_path: Path, content: str) -> None:
    if content:
        (tmp_path / content).touch()
    with pytest.raises(
        SmokeTestFailed, match="there is no model below" if content else "there is nothing in"
    ) as failed:
        find_models(tmp_path)
    assert "gpurun fetch" in failed.value.hint


@pytest.mark.parametrize("path", ["out/ckpt.pt", "ckpt.pt", "checkpoints/last.ckpt", "checkpoints/a/model.bin"])
def test_weights_that_only_their_own_code_can_load_are_named_and_not_asked_for_again(tmp_path: Path, path: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"x")
    with pytest.raises(SmokeTestFailed, match=f"home, but no model that gpurun can load: {Path(path).name}") as failed:
        find_models(tmp_path)
    assert failed.value.hint == "Test it with your own code."


def test_a_recipes_checkpoint_alone_means_that_its_model_comes_later(tmp_path: Path) -> None:
    step = tmp_path / "checkpoints/step-1"
    step.mkdir(parents=True)
    for name in ("state.json", "model.safetensors"):
        (step / name).touch()
    with pytest.raises(SmokeTestFailed, match="there is no model below"):
        find_models(tmp_path)


def test_a_described_model_is_what_it_says(tmp_path: Path) -> None:
    found = read_model_folder(model(tmp_path / "m", gpurun__json=ABOUT))
    assert (found.kind, found.adapter, found.base, found.base_revision) == ("classifier", False, "acme/base", "c" * 40)
    assert (found.labels, found.max_length, found.dtype, found.reference) == (("a", "2"), 64, "bfloat16", None)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"config__json": {"architectures": ["Qwen2ForCausalLM"]}}, "causal_lm"),
        ({"config__json": {"architectures": ["GPT2LMHeadModel"]}}, "causal_lm"),
        ({"config__json": {"architectures": ["BertForSequenceClassification"]}}, "sequence_classifier"),
        ({"config__json": {"architectures": ["BertModel"]}}, "encoder"),
        ({"config__json": {}}, "encoder"),
    ],
)
def test_a_plain_folder_is_known_by_its_architecture(tmp_path: Path, files: dict[str, Any], kind: str) -> None:
    found = read_model_folder(model(tmp_path / "m", **files))
    assert (found.kind, found.described) == (kind, False)


@pytest.mark.parametrize(
    "about",
    [
        {**ABOUT, "kind": "pickle"},
        {**ABOUT, "kind": None},
        {**ABOUT, "kind": ["classifier"]},
        {**ABOUT, "format": 2},
        {},
    ],
)
def test_an_account_that_makes_no_sense_is_refused(tmp_path: Path, about: dict[str, Any]) -> None:
    with pytest.raises(SmokeTestFailed, match="cannot be tested"):
        read_model_folder(model(tmp_path / "m", gpurun__json=about))


def test_absurd_numbers_and_names_become_harmless(tmp_path: Path) -> None:
    about = {**ABOUT, "max_length": 10**30, "labels": "x", "base": "evil", "dtype": {"a": 1}}
    found = read_model_folder(model(tmp_path / "m", gpurun__json=about))
    assert (found.max_length, found.labels, found.base, found.dtype) == (512, (), None, "float32")


def test_an_adapter_without_safetensors_is_refused_before_peft_looks_for_a_pickle(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", adapter_config__json={"base_model_name_or_path": "acme/base"})
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(SmokeTestFailed, match=r"no adapter_model\.safetensors"):
        read_model_folder(folder)


def test_half_a_reference_is_an_error(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", gpurun__json=ABOUT)
    (folder / "smoke").mkdir()
    (folder / "smoke/inputs.jsonl").write_text("{}")
    with pytest.raises(SmokeTestFailed, match=r"incomplete: no smoke/about\.json, smoke/expected\.safetensors"):
        read_model_folder(folder)
