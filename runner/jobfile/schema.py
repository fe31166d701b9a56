"""The JSON Schema of job files, by which an editor completes and checks them while they are written."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

from remote_payload.settings import RECIPES
from runner.jobfile.fields import job_schema, settings_schema


def json_schema() -> dict[str, Any]:
    """One schema for every recipe: what ``settings`` may hold depends on ``recipe``."""
    schema = copy.deepcopy(job_schema())
    definitions = schema.setdefault("$defs", {})
    schema["properties"]["recipe"] = {
        "enum": list(RECIPES),
        "description": schema["properties"]["recipe"]["description"],
    }
    branches = [{"required": ["command"], "not": {"required": ["recipe"]}}]
    for recipe in filter(_exists, RECIPES):
        settings = copy.deepcopy(settings_schema(recipe))
        definitions.update(settings.pop("$defs", {}))
        definitions[f"settings-{recipe}"] = settings
        part = {"recipe": {"const": recipe}, "settings": {"$ref": f"#/$defs/settings-{recipe}"}}
        needed = ["recipe", "settings"] if settings.get("required") else ["recipe"]
        branches.append({"properties": part, "required": needed, "not": {"required": ["command"]}})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gpurun job file",
        **{key: value for key, value in schema.items() if key != "title"},
        "oneOf": branches,
    }


def _exists(recipe: str) -> bool:
    return importlib.util.find_spec(f"remote_payload.settings.{recipe}") is not None
