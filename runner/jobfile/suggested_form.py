"""What to write instead of a value of the wrong type, as ``": write …"``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.domain.flow import flow
from runner.domain.shell_words import ASSIGNMENT
from runner.jobfile.problems import quoted
from runner.jobfile.tree import Node, read_tree

_YES = {
    "yes": "true",
    "y": "true",
    "on": "true",
    "1": "true",
    "no": "false",
    "n": "false",
    "off": "false",
    "0": "false",
}
# A section that is given as one value: the field to put it into.
_SHORT = {"code": "path", "hub": "models", "environment": "requirements"}
_NUMBERS = ("a number", "a whole number")


def suggest_form(keys: Sequence[str | int], wanted: list[str], node: Node) -> str:
    """What to write instead of ``node`` at ``keys``, where one of the types ``wanted`` belongs; empty where that is not clear."""
    if node.kind == "scalar" and node.value is None:
        section = wanted[0].startswith(("a mapping", "a list"))
        return ": put something below it, or leave the line out" if section else ""
    for kind in wanted:
        found = _as(kind, keys, node)
        if found:
            return f": write {found}"
    return ""


def shown_value(keys: Sequence[str | int], value: object) -> str:
    """A value as an error quotes it. Of ``NAME=value`` under ``secrets`` only the name is shown."""
    return quoted(str(value).partition("=")[0] + "=…" if keys[:1] == ("secrets",) and "=" in str(value) else value)


def _as(kind: str, keys: Sequence[str | int], node: Node) -> str:
    if kind in _NUMBERS or kind.startswith(("at least ", "at most ", "greater than ", "less than ")):
        return _number(node, whole="a number" not in kind)
    if kind == "true or false":
        return _YES.get(node.text.lower(), node.text.lower() if node.text.lower() in ("true", "false") else "")
    if kind == "text":
        return _text(node)
    if kind == "a list":
        return _list(keys, node)
    return _mapping(keys, node) if kind.startswith("a mapping") else ""


def _number(node: Node, whole: bool) -> str:
    if isinstance(node.value, float) and node.value.is_integer() and abs(node.value) < 1e15:
        return str(int(node.value))
    if not isinstance(node.value, str):
        return ""
    plain = re.sub(r"(?<=[0-9])[_,](?=[0-9]{3}(?:[_,]|$))", "", node.value.strip())
    read, problems = read_tree(plain, "") if re.fullmatch(r"[-+0-9.eE]{1,40}", plain) else (None, [])
    if read is None or problems or isinstance(read.value, bool) or not isinstance(read.value, int | float):
        return ""
    if isinstance(read.value, float) and whole:
        return str(int(read.value)) if read.value.is_integer() and abs(read.value) < 1e15 else ""
    return plain + (" without quotes" if plain == node.value.strip() else "")


def _text(node: Node) -> str:
    """``3`` as ``'3'``; ``{gpus}`` and ``- --lr: 0.1``, which YAML reads as mappings, as the text that they are."""
    if node.kind == "scalar":
        return f"'{node.text}' in quotes" if not isinstance(node.value, str) else ""
    if len(node.entries) != 1:
        return ""
    ((key, entry),) = node.entries.items()
    if entry.node.kind != "scalar":
        return ""
    if entry.node.value is None:
        return flow(f"{{{key}}}") + " in quotes"
    return flow(f"{key}: {entry.node.text}") + " in quotes"


def _list(keys: Sequence[str | int], node: Node) -> str:
    if node.kind == "scalar":
        return f"[{flow(node.value)}]"
    if tuple(keys) == ("secrets",):  # never their values
        return flow(list(node.entries)) + " (names only, the values come from your shell)"
    return ""


def _mapping(keys: Sequence[str | int], node: Node) -> str:
    name = ".".join(map(str, keys))
    pairs = [item.text for item in node.items] if node.kind == "list" else [node.text]
    if name in ("environment", "environment.variables") and pairs and all(map(ASSIGNMENT.fullmatch, pairs)):
        variables = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
        return flow(variables if name.endswith("variables") else {"variables": variables})
    short = _SHORT.get(name)
    if short is None or (node.kind == "list" and name == "code"):
        return ""
    return flow({short: [node.text] if short == "models" and node.kind == "scalar" else node.plain()})
