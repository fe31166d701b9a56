from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from remote_payload.settings.training import Lora
from remote_payload.train.download import BaseModel
from remote_payload.train.errors import InputError
from remote_payload.train.files import sha256_of
from remote_payload.train.model.classifier import (
    build_classifier,
    load_classifier,
    load_tokenizer,
    longest_input,
    save_classifier,
)
from remote_payload.train.model.precision import autocast, checkpoint_activations
from remote_payload.train.results.classifier_smoke import predict_logits
from tests.support.models.tiny_models import ENCODERS, save_tiny_model, tiny_model

TEXTS = ["The licensor grants you a licence.", "A ship left London", "install", "def read(path): return None"]
Folders = Callable[[str], Path]


def base(folder: Path) -> BaseModel:
    return BaseModel(str(folder), str(folder), sha256=sha256_of(folder / "model.safetensors"))


def trained(folder: Path, rank: int = 4, compute: torch.dtype = torch.float32) -> Any:
    """A classifier whose adapters are no longer zero, as after training."""
    torch.manual_seed(0)
    model = build_classifier(base(folder), 3, Lora(rank=rank, alpha=8), compute)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_a_saved_classifier_says_the_same_when_loaded(
    name: str, rank: int, tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = tiny_folder(name)
    model, tokenizer = trained(folder, rank), load_tokenizer(str(folder))
    save_classifier(model, tokenizer, tmp_path, base(folder), {"labels": ["a", "b", "c"], "max_length": 32})
    again, again_tokenizer = load_classifier(tmp_path, folder)
    expected = predict_logits(model, tokenizer, TEXTS, 32)
    assert torch.equal(predict_logits(again, again_tokenizer, TEXTS, 32), expected)
    assert not torch.allclose(expected[0], expected[1]), "equal logits for all texts prove nothing"
    names = {path.name for path in tmp_path.iterdir()}
    assert {"head.safetensors", "gpurun.json", "tokenizer.json"} <= names
    assert ("adapter_model.safetensors" in names) == (rank > 0)
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bf16_encoder_under_autocast_gives_fp32_logits_from_an_fp32_head(name: str, tiny_folder: Folders) -> None:
    model = trained(tiny_folder(name), compute=torch.bfloat16)
    tokenizer = load_tokenizer(str(tiny_folder(name)))
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with autocast(torch.device("cpu"), torch.bfloat16):
        logits = model(batch["input_ids"], batch["attention_mask"])
    assert logits.dtype == torch.float32
    assert {parameter.dtype for parameter in model.head.parameters()} == {torch.float32}
    frozen = {p.dtype for p in model.encoder.parameters() if not p.requires_grad}
    adapters = {p.dtype for p in model.encoder.parameters() if p.requires_grad}
    assert (frozen, adapters) == ({torch.bfloat16}, {torch.float32})
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_does_not_change_what_is_said_of_a_text(name: str, tiny_folder: Folders) -> None:
    model, tokenizer = trained(tiny_folder(name)), load_tokenizer(str(tiny_folder(name)))
    alone = torch.cat([predict_logits(model, tokenizer, [text], 64) for text in TEXTS])
    assert torch.allclose(predict_logits(model, tokenizer, TEXTS, 64), alone, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_lora_b_moves_under_activation_checkpointing_and_gradients_are_those_without(
    name: str, tiny_folder: Folders
) -> None:
    tokenizer = load_tokenizer(str(tiny_folder(name)))
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    gradients, forwards = [], []
    for checkpointed in (False, True):
        model = trained(tiny_folder(name)).train()
        first = next(
            module for path, module in model.named_modules() if path.endswith(("layers.0.mlp", "layer.0.intermediate"))
        )
        first.register_forward_hook(lambda *arguments, turn=checkpointed: forwards.append(turn))
        if checkpointed:
            checkpoint_activations(model.encoder)
        model(batch["input_ids"], batch["attention_mask"]).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert forwards == [False, True, True], (
        "with checkpointing a layer runs again in the backward pass, without it does not"
    )
    assert any("lora_B" in n for n in gradients[1])
    for parameter, gradient in gradients[1].items():
        assert gradient is not None and gradient.abs().max() > 0, f"{parameter} would not move"
        assert torch.allclose(gradient, gradients[0][parameter], atol=1e-6)


def test_the_saved_adapter_names_its_base_as_the_job_did(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = tiny_folder("gemma3")
    named = BaseModel("google/embeddinggemma-300m", str(folder), revision="0" * 40, licence="gemma")
    save_classifier(
        trained(folder), load_tokenizer(str(folder)), tmp_path, named, {"labels": [0, 1, 2], "max_length": 32}
    )
    assert str(folder) not in "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == named.id
    assert json.loads((tmp_path / "gpurun.json").read_text())["base"]["revision"] == "0" * 40
    assert set(load_file(tmp_path / "head.safetensors")) == {"weight", "bias"}


def test_an_adapter_on_another_base_model_is_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = tiny_folder("bert")
    save_classifier(
        trained(folder), load_tokenizer(str(folder)), tmp_path, base(folder), {"labels": [0, 1, 2], "max_length": 32}
    )
    other = save_tiny_model("bert", tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="is not the base model this adapter was trained on"):
        load_classifier(tmp_path, other)


def test_a_folder_that_is_no_classifier_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no readable gpurun.json"):
        load_classifier(tmp_path)
    (tmp_path / "gpurun.json").write_text('{"format": 1, "kind": "causal_lm"}')
    with pytest.raises(InputError, match="describes a causal_lm"):
        load_classifier(tmp_path)


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token_or_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model("gemma3", tmp_path / "model", pad=False)
    assert load_tokenizer(str(folder)).pad_token == "<|im_end|>"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="neither a pad token nor an end token"):
        load_tokenizer(str(folder))


def test_only_learned_positions_limit_the_length() -> None:
    assert longest_input(tiny_model("bert")) == 512
    assert longest_input(tiny_model("gemma3")) is None
