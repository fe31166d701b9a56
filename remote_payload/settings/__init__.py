"""What each recipe can be told, as plain dataclasses: name, type, default and one sentence for every setting.

Standard library only. The laptop turns them into checks and a JSON Schema (pydantic reads ``field(metadata=…)``: ``description``, ``gt``,
``ge``, ``le``, ``examples`` …), the box reads ``settings`` of job.json into the same class.
"""

from __future__ import annotations

import importlib
from typing import Any

RECIPES = {
    "classify": "ClassifySettings",
    "sft": "SftSettings",
    "finetune": "FinetuneSettings",
    "pretrain": "PretrainSettings",
    "preference": "PreferenceSettings",
}


def settings_class(recipe: str) -> Any:
    """The dataclass of a recipe's settings. Raises KeyError for a recipe that does not exist."""
    return getattr(importlib.import_module(f"remote_payload.settings.{recipe}"), RECIPES[recipe])
