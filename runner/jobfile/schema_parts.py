"""The JSON Schema of the job's classes: its parts, followed through references, and the descriptions of its fields."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
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


def describe(schema: Schema, types: ModuleType) -> Schema:
    """Adds the docstring below each field of the module's classes to their JSON Schema, as its description; gives the schema.

    Read from the source when a schema is printed: pydantic would do it at each start (25 ms).
    """
    parts = {schema.get("title"): schema, **schema.get("$defs", {})}
    for node in ast.parse(inspect.getsource(types)).body:
        if isinstance(node, ast.ClassDef) and node.name in parts:
            for field, text in _texts(node):  # as_ is `as` in the file, which is a keyword of Python
                if field.rstrip("_") in parts[node.name]["properties"]:
                    parts[node.name]["properties"][field.rstrip("_")]["description"] = text
    return schema


def _texts(node: ast.ClassDef) -> list[tuple[str, str]]:
    found = []
    for pair in pairwise(node.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                found.append((field, inspect.cleandoc(text)))
    return found
