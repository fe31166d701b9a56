"""The docstrings below the fields of the job's classes, read from the source when a schema is printed: pydantic would read them at
each start (25 ms).
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from types import ModuleType

from runner.jobfile.schema_parts import Schema


def describe(schema: Schema, types: ModuleType) -> Schema:
    """Adds the text below each field of the module's classes to their JSON Schema, as its description; gives the schema."""
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
