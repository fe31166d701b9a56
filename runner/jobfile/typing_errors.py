"""pydantic's errors as problems of the job file, each at its place and with the correct form."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic_core import ErrorDetails

from runner.jobfile import suggested_form, unknown_keys
from runner.jobfile.problems import Place, Problem, quoted, suggestion
from runner.jobfile.schema_parts import Schema, properties
from runner.jobfile.tree import Node

# pydantic's type of error → the wanted type, for the message "must be …, not …".
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value lines)",
    "model_type": "a mapping (key: value lines)",
    "dataclass_type": "a mapping (key: value lines)",
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_MISSING = ("missing", "missing_argument")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def translate(errors: Sequence[ErrorDetails], tree: Node, schema: Schema, path: str) -> list[Problem]:
    """Problems for ``ValidationError.errors()`` of a model whose input is ``tree``; ``schema`` is the model's JSON Schema.

    The members of a union fail one by one with pydantic: what they want is joined into one sentence, and where a member got further into
    the value than the others, only its complaint counts.
    """
    located = [(_locate(error, tree), error) for error in errors]
    deepest = [keys for (keys, tags), _ in located if tags]
    groups: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for (keys, tags), error in located:
        deeper = any(len(other) > len(keys) and other[: len(keys)] == keys for other in deepest)
        if not (tags and deeper):
            groups.setdefault(keys, []).append(error)
    return [_problem(keys, group, tree, schema, path) for keys, group in groups.items()]


def _locate(error: ErrorDetails, tree: Node) -> tuple[tuple[str | int, ...], bool]:
    """The part of pydantic's location that is in the file (a missing last key included), and whether union tags were dropped."""
    *above, last = [*error["loc"]] or [""]
    keys: list[str | int] = []
    node, tags = tree, False
    for key in above:
        below = walk(node, (key,))
        if below is None:
            tags = True
        else:
            node = below
            keys.append(key)
    if walk(node, (last,)) or error["type"] in _MISSING:
        return (*keys, last), tags
    return tuple(keys), True


def _problem(keys: tuple[str | int, ...], group: list[ErrorDetails], tree: Node, schema: Schema, path: str) -> Problem:
    parent, node = walk(tree, keys[:-1]), walk(tree, keys)
    name, error = dotted(keys), group[0]
    if error["type"] in _MISSING:
        about = properties(schema, keys[:-1]).get(str(keys[-1]), {}).get("description", "")
        return Problem(path, _own_place(tree, keys[:-1]), f"{name} is missing" + (f": {about}" if about else ""))
    if error["type"] in _UNKNOWN:
        place = parent.key_place(str(keys[-1])) if parent else Place()
        return Problem(path, place, unknown_keys.explain(keys, schema, properties(schema, keys[:-1])))
    if error["loc"][-1:] == ("[key]",) and parent:
        place, word = parent.key_place(str(keys[-1])), str(keys[-1])
        return Problem(
            path, place, f"{dotted(keys[:-1])}: a key {_complaint((), group, Node(place, value=word, text=word))}"
        )
    place = node.place if node else Place()
    return Problem(path, place, f"{name} {_complaint(keys, group, node)}")


def _complaint(keys: tuple[str | int, ...], group: list[ErrorDetails], node: Node | None) -> str:
    value = node.plain() if node else None
    wanted = list(dict.fromkeys(_wanted(error) for error in group if error["type"] in (*_WANTED, *_BOUNDS)))
    wanted.sort(key=lambda kind: kind == "text")  # typing caches Union[int, str] under either order
    choices = [word for error in group if error["type"] == "literal_error" for word in _choices(error)]
    wanted += [("one of " if len(choices) > 1 else "") + ", ".join(choices)] if choices else []
    if wanted:
        advice = suggested_form.suggest_form(keys, wanted, node) if node else ""
        advice = advice or (suggestion(value, choices) if isinstance(value, str) else "")
        return f"must be {' or '.join(wanted)}, not {quoted(value)}{advice}"
    error = group[0]
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        head, colon, rest = message.partition(": ")
        shown = suggested_form.shown_value(keys, value)
        instead = f", not {shown}" if node and node.kind == "scalar" and head.startswith("must be ") else ""
        return f"{head}{instead}{colon}{rest}"
    if error["type"] in ("too_short", "string_too_short"):
        return "must not be empty" if not value else f"needs at least {error['ctx'].get('min_length')} of them"
    return f"is not usable: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _wanted(error: ErrorDetails) -> str:
    if error["type"] in _WANTED:
        return _WANTED[error["type"]]
    words, limit = _BOUNDS[error["type"]]
    return f"{words} {error['ctx'][limit]:g}"


def _choices(error: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def walk(tree: Node, keys: Sequence[str | int]) -> Node | None:
    """The node under a path of keys and indexes, None when a part of it is not there."""
    node: Node | None = tree
    for key in keys:
        if node is None:
            return None
        below = dict(enumerate(node.items)) if isinstance(key, int) else {}
        node = below.get(key) if isinstance(key, int) else node.get(key)
    return node


def _own_place(tree: Node, keys: Sequence[str | int]) -> Place:
    """Where the mapping at ``keys`` begins for a reader: its key."""
    if keys and isinstance(keys[-1], str):
        parent = walk(tree, keys[:-1])
        return parent.key_place(keys[-1]) if parent else Place()
    node = walk(tree, keys)
    return node.place if node else Place()


def dotted(keys: Sequence[str | int]) -> str:
    """``("data", 0)`` → ``data[0]``, ``("resources", "gpus")`` → ``resources.gpus``. Keys that are no words are quoted."""
    text = ""
    for key in keys:
        word = key if isinstance(key, int) or re.fullmatch(r"[\w-]{1,60}", key) else quoted(key)
        text += f"[{word}]" if isinstance(key, int) else (f".{word}" if text else str(word))
    return text
