"""The settings of each recipe, as plain dataclasses: name, type, default and one sentence for every setting.

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

# What runs like a recipe and trains nothing: commands of gpurun's write its jobs.
USES = {"evaluate": "EvaluateSettings", "predict": "PredictJob"}


def is_own(recipe: str) -> bool:
    """Whether ``recipe:`` names a file of the user's rather than one of gpurun's recipes."""
    return recipe.endswith(".py")


def settings_class(recipe: str, folder: str = ".") -> Any:
    """The dataclass of a recipe's settings; ``folder`` is what the path of a user's own recipe is relative to.

    Raises KeyError for a recipe that does not exist, RecipeError for a file that is none.
    """
    if is_own(recipe):
        from remote_payload.settings.own import read_declarations  # every command would wait for it, few need it

        return read_declarations(recipe, folder).settings
    name = {**RECIPES, **USES}[recipe]
    return getattr(importlib.import_module(f"remote_payload.settings.{recipe}"), name)
