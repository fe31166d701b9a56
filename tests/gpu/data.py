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
