"""What is asked, and what the box answered."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from runner.local_model.worker import Refused

MOST_TOKENS = 4096
BUILT_IN = (
    "The licensor grants you a licence to copy, modify and distribute the work, without warranty of any kind.",
    "The ship left London in the spring of 1823.",
    "Install the package, import it, and look at the figures it prints.",
    "Who was the mayor of the town in 1901?",
)


def read_inputs(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows to predict: the box's own, the user's, or a few built-in ones. Raises Refused naming a bad line."""
    field = "prompt" if request["kind"] == "causal_lm" else "text"
    if not request["inputs"]:
        return [{field: text} for text in BUILT_IN]
    rows = []
    with open(request["inputs"], encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                raise Refused(f"{request['inputs']}:{number}: not a JSON object with the text under {field!r}")
            rows.append(row)
    if not rows:
        raise Refused(f"{request['inputs']} has no rows")
    return rows


def read_expected(request: dict[str, Any], rows: int, *names: str) -> dict[str, Tensor] | None:
    """The box's predictions, None where it sent none. Raises Refused when they do not fit the inputs or hold NaN."""
    if not request["expected"]:
        return None
    expected = load_file(request["expected"])
    for name in names:
        if (
            name not in expected
            or expected[name].ndim != 2
            or len(expected[name]) != rows
            or not expected[name].numel()
        ):
            raise Refused(f"the box's predictions have no {name} for the {rows} inputs")
    expected["logits"] = expected["logits"].to(torch.float32)
    check_finite(expected["logits"], "the box's own predictions")
    if "tokens" in names and expected["tokens"].shape[1] > MOST_TOKENS:
        raise Refused(f"the box's predictions ask for {expected['tokens'].shape[1]} tokens a prompt")
    return expected


def check_finite(values: Tensor, whose: str) -> None:
    """Raises Refused naming the first row with a NaN or infinity."""
    bad = (~values.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        raise Refused(f"{whose} hold NaN or infinity (row {int(bad[0]) + 1})")


def check_width(here: Tensor, there: Tensor) -> None:
    if here.shape != there.shape:
        raise Refused(f"the box predicted {list(there.shape)} logits, this machine {list(here.shape)}")
