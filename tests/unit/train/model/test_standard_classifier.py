"""A whole classifier that transformers loads by itself: the same logits, and no such checkpoint where its class computes another thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from remote_payload.settings.training import Lora
from remote_payload.train.download import BaseModel
from remote_payload.train.model.classifier import (
    Classifier,
    build_classifier,
    load_classifier,
    load_tokenizer,
    save_classifier,
)
from remote_payload.train.model.standard_classifier import standard_classifier
from remote_payload.train.results.classifier_smoke import predict_logits
from tests.support.models.standard_encoders import save_standard_encoder
from tests.support.models.tiny_models import CORPUS, save_tiny_model

LABELS: list[int | str] = ["legal", "other", 7]


def whole(folder: Path, classes: int = 3, rank: int = 0) -> Classifier:
    """A classifier on the encoder in ``folder`` whose head is far from zero."""
    torch.manual_seed(3)
    model = build_classifier(BaseModel("base", str(folder)), classes, Lora(rank=rank), torch.float32)
    with torch.no_grad():
        model.head.weight.mul_(20)
        model.head.bias.add_(1.5)
    return model.eval()


@pytest.mark.parametrize("family", ["eurobert", "ultrabert"])
def test_what_transformers_loads_gives_the_same_logits_also_for_padded_texts(family: str, tmp_path: Path) -> None:
    base = save_standard_encoder(family, tmp_path / "base")
    model, tokenizer, folder = whole(base), load_tokenizer(str(base)), tmp_path / "saved"
    folder.mkdir()
    save_classifier(model, tokenizer, folder, BaseModel("base", str(base)), {"labels": LABELS, "max_length": 64})
    standard = AutoModelForSequenceClassification.from_pretrained(folder)
    texts = [*CORPUS, "short"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    assert (batch["attention_mask"] == 0).any()
    with torch.no_grad():
        logits = standard(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = predict_logits(model, tokenizer, texts, 64)
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)
    assert expected.std(0).min() > 0.01, "equal logits for all texts prove nothing"
    again, again_tokenizer = load_classifier(folder)
    assert torch.equal(predict_logits(again, again_tokenizer, texts, 64), expected)
    (found,) = pipeline("text-classification", model=standard, tokenizer=tokenizer)("A ship left London")
    assert found["label"] == str(LABELS[int(predict_logits(model, tokenizer, ["A ship left London"], 64).argmax())])


@pytest.mark.parametrize("family", ["bert", "gemma3", "modernbert"])
def test_there_is_none_where_the_class_computes_something_else(family: str, tmp_path: Path) -> None:
    save = save_standard_encoder if family == "modernbert" else save_tiny_model
    base = save(family, tmp_path / "base")
    model, folder = whole(base), tmp_path / "saved"
    assert standard_classifier(model.encoder, model.head, LABELS) is None
    folder.mkdir()
    about = {"labels": LABELS, "max_length": 64}
    save_classifier(model, load_tokenizer(str(base)), folder, BaseModel("base", str(base)), about)
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    assert not architecture.endswith("ForSequenceClassification")


def test_there_is_none_with_an_adapter_or_more_classes_than_fit_through_the_layer(tmp_path: Path) -> None:
    base = save_standard_encoder("eurobert", tmp_path / "base")
    adapted, wide = whole(base, rank=4), whole(base, classes=17)
    assert standard_classifier(adapted.encoder, adapted.head, LABELS) is None
    assert standard_classifier(wide.encoder, wide.head, list(range(17))) is None
    fits = whole(base, classes=16)
    assert standard_classifier(fits.encoder, fits.head, list(range(16))) is not None
