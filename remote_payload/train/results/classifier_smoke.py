"""Reference predictions of a classifier, saved with it, so that another machine can check that it computes the same.

smoke/inputs.jsonl           {"text": …} a line
smoke/expected.safetensors   "logits", fp32 [rows, classes]
smoke/about.json             {"dtype", "device", "rows", "labels"}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from remote_payload.train.files import write_json, write_json_lines
from remote_payload.train.model.classifier import Classifier, load_classifier
from remote_payload.train.model.model_facts import read_model_facts

ROWS_AT_ONCE = 8


def write_classifier_smoke(folder: Path, base_path: str | None, texts: Sequence[str], device: torch.device) -> Tensor:
    """Loads the model in ``folder`` again as the other machine will, in fp32, and stores the logits of the texts, which it returns."""
    model, tokenizer = load_classifier(folder, base_path, str(device), torch.float32)
    about = read_model_facts(folder, "classifier")
    logits = predict_logits(model, tokenizer, texts, about["max_length"])
    smoke = folder / "smoke"
    smoke.mkdir()
    write_json_lines(smoke / "inputs.jsonl", ({"text": text} for text in texts))
    save_file({"logits": logits}, smoke / "expected.safetensors")
    facts = {"dtype": "float32", "device": device.type, "rows": len(texts), "labels": about["labels"]}
    write_json(smoke / "about.json", facts)
    return logits


@torch.no_grad()
def predict_logits(
    model: Classifier, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> Tensor:
    """Logits of each text, fp32 [texts, classes] on the CPU, a few rows at a time."""
    device, rows = next(model.parameters()).device, []
    for at in range(0, len(texts), ROWS_AT_ONCE):
        some = list(texts[at : at + ROWS_AT_ONCE])
        batch = tokenizer(some, truncation=True, max_length=max_length, padding=True, return_tensors="pt").to(device)
        rows.append(model(batch["input_ids"], batch["attention_mask"]).float().cpu())
    return torch.cat(rows)
