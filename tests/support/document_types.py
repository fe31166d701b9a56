"""The types in runner/cli/documents as data: their fields, how docs/json.md spells them, and whether a printed value is one."""

from __future__ import annotations

import types
import typing
from typing import Any

from runner.cli.documents import (
    checks,
    comparison,
    dealing,
    errors,
    evaluation,
    files,
    follow,
    hosts,
    models,
    publish,
    recovery,
    runs,
    scripting,
    sweep,
    tensorboard,
)

TOPICS = (
    checks,
    comparison,
    dealing,
    errors,
    evaluation,
    files,
    follow,
    hosts,
    models,
    publish,
    recovery,
    runs,
    scripting,
    sweep,
    tensorboard,
)
TYPES = {name: each for topic in TOPICS for name, each in vars(topic).items() if typing.is_typeddict(each)}
PLAIN = {str: "string", bool: "true or false", int: "number", float: "number", object: "anything"}


def fields(document: type) -> dict[str, Any]:
    """The fields of a document, inherited ones too, with their types."""
    return typing.get_type_hints(document)


def spelled(hint: Any) -> str:
    """A type as docs/json.md writes it."""
    inner = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        named = [spelled(each) for each in inner if each is not type(None)]
        return " or ".join([*named, "null"] if type(None) in inner else named)
    if typing.get_origin(hint) is list:
        return f"list of {spelled(inner[0])}"
    if typing.get_origin(hint) is dict:
        return "object" if inner[1] is object else f"object of {spelled(inner[1])}"
    return PLAIN.get(hint) or str(hint.__name__)


def differences(value: Any, hint: Any, seen: set[str], where: str = "") -> list[str]:
    """What of a printed value is not as its type says: a missing or undocumented field, a value of another type.

    The names of the types that values were found for are added to ``seen``.
    """
    inner = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        if value is None:
            return [] if type(None) in inner else [f"{where} is null"]
        (wanted,) = [each for each in inner if each is not type(None)]
        return differences(value, wanted, seen, where)
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            return [f"{where} is no list: {value!r}"]
        return [each for item in value for each in differences(item, inner[0], seen, f"{where}[]")]
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            return [f"{where} is no object: {value!r}"]
        return [each for name, item in value.items() for each in differences(item, inner[1], seen, f"{where}.{name}")]
    if typing.is_typeddict(hint):
        return _differences_of_fields(value, hint, seen, where)
    if hint is object:
        return []
    right = isinstance(value, int | float if hint in (int, float) else hint) and isinstance(value, bool) == (
        hint is bool
    )
    if hint is int and isinstance(value, float):
        right = False
    return [] if right else [f"{where} is {value!r}, not {spelled(hint)}"]


def _differences_of_fields(value: Any, document: type, seen: set[str], where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where} is no {document.__name__}: {value!r}"]
    seen.add(document.__name__)
    wanted = fields(document)
    found = [f"{where}.{name} is missing" for name in wanted.keys() - value.keys()]
    found += [f"{where}.{name} is not documented" for name in value.keys() - wanted.keys()]
    for name in wanted.keys() & value.keys():
        found += differences(value[name], wanted[name], seen, f"{where}.{name}")
    return found
