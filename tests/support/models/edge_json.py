"""The system of the report on EdgeJSON in small: a base, an adapter that the Trainer saved, and data that both are measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.models.language_data import write_lines
from tests.support.models.plain_adapter import causal_adapter, teach_base
from tests.support.models.tiny_models import save_tiny_model

TEMPLATE = "Read: {prompt}\nJSON:"


def rows() -> list[dict[str, Any]]:
    """Four of the ten have the answer that the adapter has learnt by heart, four share a field with it."""
    values = [{"name": "Ada"}, {"name": "Ada", "born": 1815}, {"name": "Brown"}]
    return [{"prompt": f"row {index}", "expected_output": values[min(index // 4, 2)]} for index in range(10)]


def asked() -> list[tuple[str, Any]]:
    """Each row as it is asked, and the right answer."""
    return [(TEMPLATE.format(prompt=row["prompt"]), row["expected_output"]) for row in rows()]


def adapter_and_base(root: Path) -> Path:
    """``root`` with ``base``, ``adapter`` and ``data.jsonl``."""
    save_tiny_model("qwen2", root / "base", chat=False)
    teach_base(root / "base", _texts({"name": "Bob"}))
    causal_adapter(root / "base", root / "adapter", _texts({"name": "Ada"}) * 8, "all-linear", rank=16)
    write_lines(root / "data.jsonl", rows())
    return root


def _texts(answer: dict[str, Any]) -> list[str]:
    """Eight of the rows with one answer, as they are trained on."""
    return [TEMPLATE.format(prompt=f"row {index}") + json.dumps(answer) + "<|endoftext|>" for index in range(8)]
