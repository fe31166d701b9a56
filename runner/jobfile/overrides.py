"""``--set key=value``: the value is YAML, the key a dotted path; errors name the key instead of a line."""

from __future__ import annotations

from dataclasses import replace

from runner.jobfile.problems import Place, Problem, quoted
from runner.jobfile.tree import Entry, Node, read_tree


def apply_overrides(root: Node, overrides: list[str]) -> tuple[Node, list[Problem]]:
    """The tree with every override applied, the last one of a key winning, and the problems of the overrides."""
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        place = Place(override=key or override)
        if not equals or not all(key.split(".")):
            problems.append(Problem("", place, "must be key=value, such as --set resources.gpus=2"))
            continue
        value, wrong = read_tree(text, "", key)
        problems += wrong
        if wrong:
            continue
        try:
            root = _graft(root, key.split("."), value or Node(place), place)
        except ValueError as error:
            problems.append(Problem("", place, str(error)))
    return root, problems


def _graft(node: Node, keys: list[str], value: Node, place: Place) -> Node:
    """A copy with ``value`` under ``keys``: a mapping with an anchor that is used in two places changes only in the named one."""
    if not keys:
        return replace(value, place=place)
    if node.kind == "scalar" and node.value is None:
        node = Node(place, "mapping")
    if node.kind != "mapping":
        raise ValueError(f"there is no key {quoted(keys[0])} in a {'list' if node.kind == 'list' else 'single value'}")
    inner = node.entries[keys[0]] if keys[0] in node.entries else Entry(keys[0], place, Node(place))
    changed = Entry(keys[0], place if len(keys) == 1 else inner.place, _graft(inner.node, keys[1:], value, place))
    return replace(node, entries={**node.entries, keys[0]: changed})
