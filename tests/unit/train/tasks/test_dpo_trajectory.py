"""A whole DPO training beside the same written out with transformers, peft and torch alone.

TRL is not installed here, so this is not TRL's own code. It is what its ``DPOTrainer`` computes with ``loss_type="sigmoid"`` and the
starting adapter as reference (https://huggingface.co/docs/trl/dpo_trainer): both answers of all pairs of a batch padded to one length,
log-softmax over whole logits, the sum over the answers' tokens, the reference a second copy of the adapter, the mean of
-log sigmoid(beta * margin), the gradient clipped, AdamW.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from remote_payload.settings.preference import PreferenceSettings
from remote_payload.train.data.batching import epoch_order
from remote_payload.train.data.chat import Format
from remote_payload.train.data.packing import Document
from remote_payload.train.data.records import Record
from remote_payload.train.tasks.preferences import Pair, encode_pairs
from tests.support.models.language_data import pairs, run_recipe_here, write_lines
from tests.support.models.plain_adapter import causal_adapter
from tests.support.models.tiny_models import tiny_tokenizer

BETA, RATE, DECAY, CLIP, SIZE, EPOCHS = 0.3, 0.003, 0.1, 0.5, 2, 6
TAUGHT = [f"{pair['prompt']} {pair['chosen']}" for pair in pairs()]


def by_hand(base: Path, adapter: Path, found: list[Pair]) -> tuple[list[float], list[float], dict[str, Tensor]]:
    """Losses and gradient norms of all steps, and the adapter's weights in the end by their names in peft's files."""
    policy = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter, is_trainable=True)
    policy.load_adapter(adapter, adapter_name="reference")
    policy.set_adapter("default")
    policy.eval()  # there is no dropout; the two adapters are all that differs
    trained = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=DECAY, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for batch in batches(found):
        policy.set_adapter("reference")
        with torch.no_grad():
            reference = log_probabilities(policy, batch)
        policy.set_adapter("default")
        ratios = log_probabilities(policy, batch) - reference
        loss = -F.logsigmoid(BETA * (ratios[:, 0] - ratios[:, 1])).mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms, {name.replace(".default", ""): weight.detach() for name, weight in trained.items()}


def batches(found: list[Pair]) -> Iterator[list[Pair]]:
    for epoch in range(EPOCHS):
        order = epoch_order(len(found), 0, epoch)
        for start in range(0, len(found), SIZE):
            yield [found[index] for index in order[start : start + SIZE]]


def log_probabilities(model: Any, batch: list[Pair]) -> Tensor:
    """``[pairs, 2]``: one padded batch of all chosen and then all rejected answers."""
    documents = [pair.chosen for pair in batch] + [pair.rejected for pair in batch]
    longest = max(map(len, documents))
    ids, mask, answered = (torch.stack([row(document, longest, kind) for document in documents]) for kind in range(3))
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    tokens = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (tokens * answered[:, 1:]).sum(-1).view(2, -1).T


def row(document: Document, longest: int, kind: int) -> Tensor:
    """Token ids (0), what is no padding (1), or what belongs to the answer (2), padded on the right."""
    values = (document.ids, [1] * len(document), list(map(int, document.learn)))[kind]
    return F.pad(torch.tensor(values), (0, longest - len(document)))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_trajectory_is_that_of_dpo_with_the_starting_adapter_as_reference(family, tmp_path, tiny_folder):
    base = tiny_folder(family)
    adapter = causal_adapter(base, tmp_path / "adapter", TAUGHT, ["q_proj", "v_proj", "up_proj"])
    data = write_lines(tmp_path / "pairs.jsonl", pairs())
    settings = {
        "model": str(base), "adapter": str(adapter), "train": str(data), "max_length": 64, "beta": BETA, "epochs": EPOCHS,
        "precision": "fp32", "batch": {"size": SIZE, "micro": 1}, "schedule": {"name": "constant", "warmup": 0},
        "optimizer": {"learning_rate": RATE, "weight_decay": DECAY, "clip": CLIP}, "generation": {"examples": 0},
        "evaluation": {"every_epochs": None},
    }  # fmt: skip
    assert run_recipe_here("preference", tmp_path / "run", settings) == 0
    records = [Record(value, "pairs.jsonl", line) for line, value in enumerate(pairs(), start=1)]
    fields = PreferenceSettings(model="", adapter="", train="", max_length=64)
    found, _ = encode_pairs(records, tiny_tokenizer(), Format(), fields)
    losses, norms, weights = by_hand(base, adapter, found)

    lines = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    steps = [event for event in lines if event["type"] == "step"]
    assert len(steps) == len(losses) == EPOCHS * math.ceil(len(found) / SIZE)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses[-1] < losses[0] - 0.1  # it has learnt
    assert [step["loss"] for step in steps] == pytest.approx(losses, rel=1e-3, abs=1e-4)
    assert [step["grad_norm"] for step in steps] == pytest.approx(norms, rel=1e-2, abs=1e-4)
    kept = load_file(tmp_path / "run/outputs/models/best/adapter_model.safetensors")
    assert kept.keys() == weights.keys()
    came = load_file(adapter / "adapter_model.safetensors")
    moved = max(float((weights[name] - came[name]).abs().max()) for name in came)
    for name, tensor in weights.items():
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=0.02 * moved, msg=name)
