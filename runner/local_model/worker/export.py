"""Writes a model as a whole: its adapter merged into the base, the weights in one dtype, and the predictions to test it with. Of a
checkpoint also what the finished model would have been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.settings.generation import Generation
from remote_payload.train.data.chat import prompt_ids
from remote_payload.train.download import BaseModel
from remote_payload.train.inference.target import end_tokens_of
from remote_payload.train.model.causal import base_of
from remote_payload.train.model.classifier import Classifier, save_classifier
from remote_payload.train.model.greedy_decoding import SmokePrompt, decode_greedily
from remote_payload.train.model.model_facts import (
    MODEL_FACTS,
    ModelFacts,
    prompting_of,
    read_model_facts,
    write_model_facts,
)
from remote_payload.train.results.finished_model import write_finished_model
from remote_payload.train.results.usage import FOLDER, causal_usage, classifier_usage
from runner.local_model.messages import Exported, ExportRequest, Progress, Send, SmokeRequest
from runner.local_model.worker import Refused
from runner.local_model.worker.load import check_weights, load
from runner.local_model.worker.ollama import prompt_form
from runner.local_model.worker.predict import logits_of
from runner.local_model.worker.reference import read_inputs

LIKELY = 10  # of the most probable tokens, whose probabilities are compared


def export(request: ExportRequest, send: Send) -> Exported:
    """Writes the folder ``request.into``. Raises Refused, before anything is written, for what a whole model cannot hold."""
    source = request.source
    send(Progress(note="loading"))
    model, tokenizer = load(source, torch.device("cpu"), getattr(torch, source.dtype))
    check_weights(model)
    network = model.encoder if isinstance(model, Classifier) else model
    if request.title is None:
        _refuse_tied(network)
    facts = _facts(source, request.dtype)
    ends = (
        list((facts or {}).get("end_tokens") or end_tokens_of(model, tokenizer)) if source.kind == "causal_lm" else []
    )
    form = prompt_form(tokenizer, facts, ends) if request.form else None
    request.into.mkdir(parents=True)
    send(Progress(note="predicting"))
    _write_reference(source, model, tokenizer, ends, request.into / "smoke")
    if request.questions:
        _write_questions(request.into / "smoke", tokenizer, ends, request.questions)
    if request.title is not None:
        send(Progress(note="writing"))
        write_finished_model(
            source.folder, model, tokenizer, request.into, dtype=getattr(torch, request.dtype), title=request.title
        )
        return Exported(0, form)
    send(Progress(note="merging"))
    layers = sum(isinstance(module, BaseTunerLayer) for module in network.modules())
    whole = _merged(network).to(getattr(torch, request.dtype))
    send(Progress(note="writing"))
    if isinstance(model, Classifier):
        assert facts
        model.encoder = whole
        base = BaseModel(str((facts["base"] or {}).get("id")), "")
        save_classifier(model, tokenizer, request.into, base, facts)
        usage = classifier_usage(base, facts["labels"], facts["max_length"], model)
        _write_card(request.into, usage)
    else:
        whole.save_pretrained(str(request.into))
        tokenizer.save_pretrained(str(request.into))
        if facts:
            write_model_facts(request.into, facts)
            _write_card(request.into, causal_usage(whole, tokenizer, None, prompting_of(facts), Generation()))
    return Exported(layers, form)


def _write_card(folder: Path, usage: str) -> None:
    """README.md with the Python that uses this folder: a classifier may be of no class that transformers has, and a language model is
    asked as in training."""
    code = usage.replace(FOLDER, f"./{folder.name}")
    (folder / "README.md").write_text(f"# The whole model\n\nWithout gpurun:\n\n```python\n{code}```\n", "utf-8")


def _refuse_tied(network: Any) -> None:
    """Raises Refused for an adapter on a matrix that is both embedding and output head: merged into one, it would change the other."""
    base = base_of(network)
    if base.get_output_embeddings() is None or not base.config.get_text_config().tie_word_embeddings:
        return
    parts = {"output head": base.get_output_embeddings(), "embeddings": base.get_input_embeddings()}
    adapted = [name for name, part in parts.items() if isinstance(part, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    if adapted:
        raise Refused(
            f"the adapter changes the {' and the '.join(adapted)}, and this model has one matrix for embeddings and output head: "
            "merged, it would be another model",
            "Use it as it is, with peft. To export, train without lm_head and embed_tokens among the adapter's layers.",
        )


def _merged(network: Any) -> PreTrainedModel:
    """The base with the adapter's weights added to its own. Raises Refused where that makes a weight NaN."""
    if not isinstance(network, PeftModel):
        whole: PreTrainedModel = network
        return whole
    try:
        merged: Any = network.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise Refused(f"the adapter cannot be merged: {error}") from None
    if hasattr(merged, "peft_config"):
        del merged.peft_config  # by which transformers and gpurun would take it for an adapter
    merged._hf_peft_config_loaded = False
    plain: PreTrainedModel = merged
    return plain


def _facts(source: SmokeRequest, dtype: str) -> ModelFacts | None:
    """gpurun.json of the whole model; None where the source has none."""
    if not (source.folder / MODEL_FACTS).is_file():
        return None
    return {**read_model_facts(source.folder), "adapter": False, "dtype": dtype}


def _write_reference(
    source: SmokeRequest, model: nn.Module, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], folder: Path
) -> None:
    """The box's predictions, or else what the model predicts here before anything is changed."""
    if source.expected is not None:
        shutil.copytree(source.expected.parent, folder)
        return
    rows = read_inputs(source)
    folder.mkdir()
    about: dict[str, object] = {"dtype": source.dtype, "device": "cpu", "rows": len(rows)}
    if source.kind == "causal_lm":
        assert isinstance(model, PreTrainedModel | PeftModel)
        inputs: list[SmokePrompt] = [{"prompt": row.text, "add_special_tokens": row.add_special_tokens} for row in rows]
        logits, tokens = decode_greedily(model, tokenizer, inputs, ends)
        expected = {"logits": logits, "tokens": tokens}
        lines, about["end_tokens"] = [json.dumps(each) for each in inputs], list(ends)
    else:
        expected = {"logits": logits_of(source, model, tokenizer, [row.text for row in rows])}
        lines = [json.dumps({"text": row.text}) for row in rows]
    save_file(expected, folder / "expected.safetensors")
    (folder / "inputs.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "about.json").write_text(json.dumps(about) + "\n", "utf-8")


def _write_questions(smoke: Path, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], file: Path) -> None:
    """The smoke test's rows in numbers, for a program that has no torch: a ``Question`` of ``exporting/gguf.py`` a line."""
    expected = load_file(smoke / "expected.safetensors")
    lines = []
    rows = zip(
        (smoke / "inputs.jsonl").read_text("utf-8").splitlines(), expected["logits"], expected["tokens"], strict=True
    )
    for line, logits, tokens in rows:
        row = json.loads(line)
        special = row.get("add_special_tokens", True) is True
        likely = logits.float().log_softmax(-1).topk(min(LIKELY, len(logits)))
        question = {
            "prompt": row["prompt"],
            "add_special_tokens": special,
            "ids": list(prompt_ids(tokenizer, row["prompt"], special)),
            "tokens": [token for token in tokens.tolist() if token >= 0],
            "likely": dict(zip(likely.indices.tolist(), likely.values.tolist(), strict=True)),
            "scale": float(logits.abs().max()),
            "end": ends[0] if ends else 0,
        }
        lines.append(json.dumps(question))
    file.write_text("\n".join(lines) + "\n", "utf-8")
