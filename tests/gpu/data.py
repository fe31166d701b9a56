"""Data as the reports have it, every example as long as a row, so that a step is as heavy as it gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = "The ship left London in the spring of 1823, and nobody on the quay believed that it would return. "


def text_of(characters: int, number: int) -> str:
    """So many characters; texts of different numbers differ."""
    text = f"{number}: " + WORDS * (characters // len(WORDS) + 1)
    return text[:characters]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def conversations(count: int, length: int) -> list[dict[str, Any]]:
    """Questions of a few words with answers of at least ``length`` tokens."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"Tell me {n}"},
                {"role": "assistant", "content": text_of(8 * length, n)},
            ]
        }
        for n in range(count)
    ]


def extractions(count: int, length: int) -> list[dict[str, Any]]:
    """Texts of a few words, of which JSON of at least ``length`` tokens is to be made."""
    schema = {"type": "object", "required": ["text"]}
    return [
        {"prompt": f"ship {n}", "expected_output": {"text": text_of(8 * length, n)}, "schema": schema}
        for n in range(count)
    ]


def labelled(count: int, length: int, *, ragged: bool) -> list[dict[str, Any]]:
    """Texts of at least ``length`` tokens with the classes 0 to 5, in turn; the ``ragged`` ones are of different lengths."""
    sizes = [8 * length // (1 + (n % 3 if ragged else 0)) for n in range(count)]
    return [{"text": text_of(size, n), "score": n % 6} for n, size in enumerate(sizes)]


def pairs(count: int, length: int) -> list[dict[str, Any]]:
    """Pairs of answers, each of about ``length`` tokens: the tokenizer makes one of two to three characters."""
    return [
        {"prompt": f"Tell me {n}", "chosen": text_of(2 * length, n), "rejected": text_of(2 * length, n + count)}
        for n in range(count)
    ]


def structured(count: int, length: int) -> dict[str, Any]:
    """Documents of at least ``length`` tokens, and evaluation sets of short questions."""
    documents = [{"id": n, "type": "text", "prompt": "", "completion": text_of(8 * length, n)} for n in range(count)]
    sets = {
        name: {
            "eval_points": [
                {"prompt": f"When did ship {n} of {name} sail?", "completion": f" In {1800 + n}."} for n in range(40)
            ]
        }
        for name in ("ships", "mayors")
    }
    return {"document_dataset": {"docs": documents}, "eval_dataset_builders": sets}


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
