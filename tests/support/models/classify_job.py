"""A small classify run in a process of its own or in this one: data with a pattern that a tiny encoder can find."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = {
    0: ["ship", "London", "quay", "spring", "return"],
    1: ["licence", "grants", "warranty", "permission", "copy"],
    2: ["install", "package", "import", "run", "path"],
}


def write_texts(path: Path, rows: int, classes: int = 3, seed: int = 0, **more: Any) -> Path:
    """JSON Lines of ragged texts, each mostly of its class's words."""
    generator = random.Random(seed)
    lines = []
    for index in range(rows):
        label = index % classes
        words = [
            generator.choice(WORDS[label if generator.random() < 0.9 else (label + 1) % 3])
            for _ in range(generator.randint(3, 40))
        ]
        lines.append(json.dumps({"text": " ".join(words), "label": label, "kind": "abc"[label], **more}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def classify_settings(model: Path, data: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a run of a second or two; ``changes`` replace whole groups."""
    return {
        "model": str(model),
        "train": str(data),
        "max_length": 64,
        "epochs": 2,
        "lora": {"rank": 4, "alpha": 8},
        "optimizer": {"learning_rate": 0.01},
        "batch": {"size": 8},
        "smoke_rows": 6,
        "evaluation": {"metric": "macro_f1"},
        **changes,
    }


def write_job(folder: Path, settings: dict[str, Any], recipe: str = "classify") -> Path:
    """The folder as gpurun makes it for a run, with job.json in it; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(
        json.dumps({"name": "tiny", "recipe": recipe, "settings": settings}), encoding="utf-8"
    )
    return folder
