"""The inputs of a smoke test, and the box's predictions for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from remote_payload.train.results.finished_model import TEXTS
from runner.local_model.messages import SmokeRequest
from runner.local_model.worker import Refused

MAX_TOKENS = 4096


@dataclass(frozen=True)
class Input:
    """A text to classify, or a prompt, the chat template applied; ``add_special_tokens`` is the tokenizer's argument for it."""

    text: str
    add_special_tokens: bool = True


def read_inputs(request: SmokeRequest) -> list[Input]:
    """The rows to predict: the box's own, the user's, or a few built-in ones. Raises Refused naming a bad line."""
    if request.inputs is None:
        return [Input(text) for text in TEXTS]
    field = "prompt" if request.kind == "causal_lm" else "text"
    with open(request.inputs, encoding="utf-8") as file:
        rows = [_input(line, field, request.inputs, number) for number, line in enumerate(file, 1)]
    if not rows:
        raise Refused(f"{request.inputs} has no rows")
    return rows


def _input(line: str, field: str, file: Path, number: int) -> Input:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        raise Refused(f"{file}:{number}: not a JSON object with the text under {field!r}")
    return Input(row[field], row.get("add_special_tokens", True) is True)


def read_expected(request: SmokeRequest, rows: int, *names: str) -> dict[str, Tensor] | None:
    """The box's predictions by name, None where there are none. Raises Refused when they do not fit the inputs or hold NaN.

    ``logits`` is fp32 ``[rows, classes or vocabulary]``, ``tokens`` int64 ``[rows, new tokens]`` with -1 after the end token.
    """
    if request.expected is None:
        return None
    expected: dict[str, Tensor] = load_file(request.expected)
    for name in names:
        found = expected.get(name)
        if found is None or found.ndim != 2 or len(found) != rows or not found.numel():
            raise Refused(f"the box's predictions have no {name} for the {rows} inputs")
    expected["logits"] = expected["logits"].to(torch.float32)
    check_finite(expected["logits"], "the box's own predictions")
    if "tokens" in names and expected["tokens"].shape[1] > MAX_TOKENS:
        raise Refused(f"the box's predictions ask for {expected['tokens'].shape[1]} tokens a prompt")
    return expected


def check_finite(values: Tensor, whose: str) -> None:
    """Raises Refused naming the first row with a NaN or infinity."""
    bad = (~values.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        raise Refused(f"{whose} hold NaN or infinity (row {int(bad[0]) + 1})")


def check_width(here: Tensor, there: Tensor) -> None:
    """Raises Refused when the two have another number of classes, or another vocabulary."""
    if here.shape != there.shape:
        raise Refused(f"the box predicted {list(there.shape)} logits, this machine {list(here.shape)}")


def largest_difference(here: Tensor, there: Tensor) -> float:
    """The largest absolute difference of two rows of logits, in fp64: in fp32 two finite numbers may be infinitely far apart."""
    return float((here.double() - there.double()).abs().max())
