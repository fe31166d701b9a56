"""Parts of a JSON Schema, followed through its references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]
"""A JSON Schema (https://json-schema.org/draft/2020-12/schema) or a part of one, as pydantic gives it."""


def closed(schema: Schema) -> Schema:
    """The schema of dataclasses, changed in place so that no key is allowed that they do not name."""
    for part in (schema, *schema.get("$defs", {}).values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return schema


def resolve(part: object, schema: Schema) -> Schema:
    """A part of ``schema`` with its reference followed; of several alternatives the one that has fields or items."""
    if not isinstance(part, dict):
        return {}
    if "$ref" in part:
        return resolve(schema.get("$defs", {}).get(part["$ref"].rpartition("/")[2], {}), schema)
    for member in part.get("anyOf", ()):
        resolved = resolve(member, schema)
        if "properties" in resolved or "items" in resolved:
            return resolved
    return part


def properties(schema: Schema, keys: Sequence[str | int]) -> Schema:
    """The fields that a JSON Schema allows at a path of keys: each with its own schema."""
    found = resolve(schema, schema)
    for key in keys:
        if isinstance(key, int):
            found = resolve(found.get("items", {}), schema)
        else:
            found = resolve(found.get("properties", {}).get(key) or {}, schema)
    fields: Schema = found.get("properties", {})
    return fields
