"""The settings of each recipe, as plain dataclasses: name, type, default and one sentence for every setting.

Standard library only. The laptop turns them into checks and a JSON Schema (pydantic reads ``field(metadata=…)``: ``description``, ``gt``,
``ge``, ``le``, ``examples`` …), the box reads ``settings`` of job.json into the same class.
"""

from __future__ import annotations

import importlib
from typing import Any

from remote_payload.settings.own import is_own, read_declarations

RECIPES = {
    "classify": "ClassifySettings",
    "sft": "SftSettings",
    "finetune": "FinetuneSettings",
    "pretrain": "PretrainSettings",
    "preference": "PreferenceSettings",
}


def settings_class(recipe: str, folder: str = ".") -> Any:
    """The dataclass of a recipe's settings; ``folder`` is what the path of a user's own recipe is relative to.

    Raises KeyError for a recipe that does not exist, RecipeError for a file that is none.
    """
    if is_own(recipe):
        return read_declarations(recipe, folder).settings
    name = RECIPES[recipe]
    return getattr(importlib.import_module(f"remote_payload.settings.{recipe}"), name)
