"""A target of every origin computes what its own library computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig

from remote_payload.train.errors import InputError
from remote_payload.train.inference.target import Target, load_target
from tests.support.models.plain_adapter import causal_adapter, classifier_adapter
from tests.support.models.smoke_models import LABELS, causal_run, classifier_run
from tests.support.models.tiny_models import CORPUS, VOCABULARY, save_tiny_model, tiny_tokenizer

TEXTS = [(text, index % 3) for index, text in enumerate(CORPUS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("targets")


def logits_of(target: Target, text: str) -> torch.Tensor:
    """Of a classifier one row of classes, of a language model one row of the vocabulary after the last token."""
    ids = torch.tensor([target.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        if target.kind == "classifier":
            return target.logits(ids, torch.ones_like(ids), False)[0]
        return target.model(ids).logits[0, -1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("encoder", ["bert", "gemma3"])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_classifier_of_gpurun(root: Path, encoder: str, rank: int) -> None:
    place = root / f"{encoder}{rank}"
    folder = classifier_run(place, encoder, rank=rank)
    target = load_target(folder, base_path=place / "base", name="mine")
    assert (target.name, target.kind, target.labels, target.threshold, target.max_length) == (
        "mine", "classifier", tuple(LABELS), None, 64,
    )  # fmt: skip
    expected = load_file(folder / "smoke/expected.safetensors")["logits"]
    for text, row in zip(CORPUS, expected, strict=True):
        assert torch.allclose(logits_of(target, text), row, atol=1e-5)


def test_a_language_model_of_gpurun_and_its_base(root: Path) -> None:
    place = root / "causal"
    folder = causal_run(place)
    tuned = load_target(folder, base_path=place / "base")
    base = load_target(folder, base_path=place / "base", ask_base=True)
    expected = load_file(folder / "smoke/expected.safetensors")["logits"]
    plain = AutoModelForCausalLM.from_pretrained(place / "base")
    for text, row in zip(CORPUS, expected, strict=True):
        assert torch.allclose(logits_of(tuned, text), row, atol=1e-4)
        ids = torch.tensor([base.tokenizer(text)["input_ids"]])
        assert torch.allclose(logits_of(base, text), plain(ids).logits[0, -1], atol=1e-4)
    assert tuned.kind == base.kind == "causal_lm" and tuned.end_tokens


def test_an_adapter_that_gpurun_never_saw(root: Path) -> None:
    base = save_tiny_model("llama", root / "plain-base")
    folder = causal_adapter(base, root / "plain-adapter", list(CORPUS), ["q_proj", "v_proj"])
    # Its base is found by the name in adapter_config.json, or where the caller says that it lies.
    target = load_target(folder)
    moved = shutil.copytree(base, root / "moved-base")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    untuned = AutoModelForCausalLM.from_pretrained(base)
    for text in CORPUS:
        ids = torch.tensor([target.tokenizer(text)["input_ids"]])
        expected = adapted(ids).logits[0, -1]
        assert torch.allclose(logits_of(target, text), expected, atol=1e-5)
        assert torch.allclose(logits_of(load_target(folder, base_path=moved), text), expected, atol=1e-5)
        before = logits_of(load_target(folder, ask_base=True), text)
        assert torch.allclose(before, untuned(ids).logits[0, -1], atol=1e-5) and not torch.allclose(before, expected)
    assert target.kind == "causal_lm" and target.prompting["chat"] and target.base
    assert target.base["id"] == str(base)


def test_a_classification_adapter_that_gpurun_never_saw(root: Path) -> None:
    base = save_tiny_model("bert", root / "sequence-base")
    folder = classifier_adapter(base, root / "sequence-adapter", TEXTS, ["query", "value"])
    target = load_target(folder)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    adapted = PeftModel.from_pretrained(network, folder).eval()
    for text in CORPUS:
        ids = torch.tensor([target.tokenizer(text)["input_ids"]])
        assert torch.allclose(logits_of(target, text), adapted(input_ids=ids).logits[0], atol=1e-5)
    assert target.kind == "classifier" and len(target.labels) == 3 and target.max_length == 512


@pytest.mark.parametrize("kind", ["classifier", "causal_lm"])
def test_a_whole_model_of_transformers(root: Path, kind: str) -> None:
    folder = root / f"whole-{kind}"
    plain: Any = _sequence_classifier(folder, classes=2) if kind == "classifier" else None
    if plain is None:
        save_tiny_model("gpt2", folder, chat=False, pad=False)
        plain = AutoModelForCausalLM.from_pretrained(folder)
    target = load_target(folder)
    assert target.kind == kind and target.base is None and target.tokenizer.pad_token_id is not None
    for text in CORPUS:
        ids = torch.tensor([target.tokenizer(text)["input_ids"]])
        found = plain(input_ids=ids).logits[0] if kind == "classifier" else plain(ids).logits[0, -1]
        assert torch.allclose(logits_of(target, text), found, atol=1e-5)


def test_what_is_no_target_is_refused(root: Path) -> None:
    empty = root / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no model here"):
        load_target(empty)
    encoder = save_tiny_model("bert", root / "encoder")
    with pytest.raises(InputError, match="no classifier and no language model"):
        load_target(encoder)
    with pytest.raises(InputError, match="lacks 2 of the model's weights"):
        config = json.loads((encoder / "config.json").read_text())
        (encoder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
        load_target(encoder)


def _sequence_classifier(folder: Path, classes: int) -> Any:
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_labels=classes,
        pad_token_id=1,
    )  # fmt: skip
    network = AutoModelForSequenceClassification.from_config(config).eval()
    network.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return network
