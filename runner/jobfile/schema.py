"""The JSON Schema of job files, by which an editor completes and checks them while they are written."""

from __future__ import annotations

import copy
import importlib.util

from remote_payload.settings import RECIPES, settings_class
from runner.jobfile.fields import job_schema, settings_schema
from runner.jobfile.schema_parts import Schema

OWN_RECIPE = {"type": "string", "pattern": r"\.py$"}  # its settings stand in its file, which a schema cannot read


def json_schema() -> Schema:
    """One schema for all recipes: the fields of ``settings`` depend on ``recipe``."""
    schema = copy.deepcopy(job_schema())
    definitions = schema.setdefault("$defs", {})
    schema["properties"]["recipe"] = {
        "anyOf": [{"enum": list(RECIPES)}, OWN_RECIPE],
        "description": schema["properties"]["recipe"]["description"],
    }
    branches = [{"required": ["command"], "not": {"required": ["recipe"]}}]
    for recipe in filter(_exists, RECIPES):
        settings = copy.deepcopy(settings_schema(settings_class(recipe)))
        definitions.update(settings.pop("$defs", {}))
        definitions[f"settings-{recipe}"] = settings
        part = {"recipe": {"const": recipe}, "settings": {"$ref": f"#/$defs/settings-{recipe}"}}
        needed = ["recipe", "settings"] if settings.get("required") else ["recipe"]
        branches.append({"properties": part, "required": needed, "not": {"required": ["command"]}})
    own = {"recipe": OWN_RECIPE, "settings": {"type": "object"}}
    branches.append({"properties": own, "required": ["recipe"], "not": {"required": ["command"]}})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gpurun job file",
        **{key: value for key, value in schema.items() if key != "title"},
        "oneOf": branches,
    }


def _exists(recipe: str) -> bool:
    return importlib.util.find_spec(f"remote_payload.settings.{recipe}") is not None
