"""A checkpoint becomes a finished model on the box, in a process of its own: ``publish --on-box`` starts it, offline, with the paths as
arguments.

    python -m remote_payload.train.inference.finishing outputs/checkpoints/step-000100 NEW-FOLDER TITLE

It ends with 0, or prints one line with the reason and ends with 2. On the laptop ``runner/local_model/worker/export.py`` does the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from remote_payload.train.errors import InputError
from remote_payload.train.files import read_json_object
from remote_payload.train.inference.target import Target, load_target
from remote_payload.train.model.greedy_decoding import SmokePrompt, decode_greedily
from remote_payload.train.model.model_facts import read_model_facts
from remote_payload.train.results.causal_smoke import write_causal_smoke
from remote_payload.train.results.classifier_smoke import predict_logits, write_classifier_smoke
from remote_payload.train.results.finished_model import TEXTS, write_finished_model

ALLOWED = 5e-4  # of the largest logit: both compute in fp32 on the same CPU
CPU = torch.device("cpu")


def finish(checkpoint: Path, folder: Path, title: str) -> None:
    """Writes the model of ``checkpoint`` to the new ``folder``, loads that again and compares what the two predict.

    Raises InputError for a folder that is no checkpoint, and where they differ.
    """
    target = load_target(checkpoint)
    rows = _rows(checkpoint, "prompt" if target.kind == "causal_lm" else "text")
    own = _logits(target, rows)
    folder.mkdir()
    write_finished_model(checkpoint, target.model, target.tokenizer, folder, dtype=_dtype_of(checkpoint), title=title)
    kind, ends = target.kind, target.end_tokens if target.kind == "causal_lm" else []
    del target  # makes room for the copy that is loaded
    if kind == "classifier":
        again = write_classifier_smoke(folder, None, [str(row["text"]) for row in rows], CPU)
    else:
        again = write_causal_smoke(folder, None, _prompts(rows), ends, CPU)
    difference = float((again - own).abs().max())
    if not difference <= ALLOWED * max(1.0, float(own.abs().max())):
        raise InputError(
            f"{checkpoint.name} as a finished model predicts something else (a logit differs by {difference:.2g})"
        )


def _logits(target: Target, rows: list[dict[str, object]]) -> Tensor:
    if target.kind == "classifier":
        return predict_logits(target.model, target.tokenizer, [str(row["text"]) for row in rows], target.max_length)
    return decode_greedily(target.model, target.tokenizer, _prompts(rows), target.end_tokens)[0]


def _prompts(rows: list[dict[str, object]]) -> list[SmokePrompt]:
    return [
        {"prompt": str(row["prompt"]), "add_special_tokens": row.get("add_special_tokens", True) is True}
        for row in rows
    ]


def _rows(checkpoint: Path, field: str) -> list[dict[str, object]]:
    """What the run's finished model was asked, where there is one; else a few texts."""
    file = checkpoint.parent.parent / "models" / "best" / "smoke" / "inputs.jsonl"
    if file.is_file():
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [{field: text} for text in TEXTS]


def _dtype_of(checkpoint: Path) -> torch.dtype:
    """That of the weights in training; a language model's configuration has it."""
    config = read_json_object(checkpoint / "config.json")
    named = read_model_facts(checkpoint).get("dtype") or config.get("dtype") or config.get("torch_dtype")
    found = getattr(torch, str(named), None)
    return found if isinstance(found, torch.dtype) else torch.float32


if __name__ == "__main__":
    try:
        finish(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    except InputError as error:
        print(error)
        sys.exit(2)
