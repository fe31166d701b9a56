"""YAML text → a tree with the place (line and column) of every key and value.

Built from PyYAML's events, not its constructors: no tag ever makes an object, duplicate keys are seen, and depth and size are bounded
while reading, aliases counted as what they expand to; ``<<: *anchor`` merges. Scalars mean what YAML 1.2
says (``3e-4`` is a number, ``no`` is a word).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from runner.jobfile.problems import Place, Problem, escaped, quoted

MAX_DEPTH = 32
MAX_NODES = 20_000

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)

# The beginning of a message of PyYAML → the message that is shown; other messages are shown unchanged.
_SYNTAX = {
    "found character '\\t' that cannot start any token": "a tab: YAML wants spaces here",
    "mapping values are not allowed here": "a ':' where no key can stand: check the indentation, or put text that holds ': ' in quotes",
    "could not find expected ':'": "not a 'key: value' line",
    "expected <block end>": "the indentation fits none of the lines above",
    "expected the node content": "a value is missing or begins with a character that must be in quotes",
    "expected ',' or ']', but got '{'": 'text that holds { or } must be in quotes here, such as "--nproc-per-node={gpus}"',
    "expected ',' or '}', but got '{'": "text that holds { or } must be in quotes here",
    "expected '<document start>'": "this line does not go on with what is above it: the job ended there",
    "found unexpected end of stream": "a quote is opened and not closed",
    "found undefined alias": "an alias (*name) of something that is not defined above it",
    "found character": "a value cannot begin with this character: put it in quotes",
    "expected ',' or": "a ',' or the closing bracket is missing",
    "found unknown escape character": "an unknown escape in double quotes: use single quotes or double the backslash",
}


@dataclass(frozen=True)
class Entry:
    """One ``key: value`` of a mapping."""

    key: str
    place: Place
    node: Node


@dataclass(frozen=True)
class Node:
    """A mapping (``entries``), a list (``items``) or a scalar (``value``, and ``text`` as it is written)."""

    place: Place
    kind: str = "scalar"
    value: str | int | float | bool | None = None
    text: str = ""
    entries: dict[str, Entry] = field(default_factory=dict)
    items: tuple[Node, ...] = ()
    size: int = 1  # nodes below and including this one, aliases expanded
    height: int = 1

    def get(self, *keys: str) -> Node | None:
        """The node under a path of keys, None when a part of it is not there or not a mapping."""
        node = self
        for key in keys:
            if key not in node.entries:
                return None
            node = node.entries[key].node
        return node

    def key_place(self, key: str) -> Place:
        """The place of a key; the mapping's own place when it has no such key."""
        return self.entries[key].place if key in self.entries else self.place

    def plain(self) -> Any:
        """Dicts, lists and scalars."""
        if self.kind == "mapping":
            return {key: entry.node.plain() for key, entry in self.entries.items()}
        return [item.plain() for item in self.items] if self.kind == "list" else self.value


class NotATree(Exception):
    """The text cannot be read further than ``place``."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message


def read_tree(text: str, path: str, override: str = "") -> tuple[Node | None, list[Problem]]:
    """The tree of ``text`` (None when it cannot be read) and its problems as YAML: syntax, duplicate keys, tags, size."""
    reading = _Reading(path, override)
    try:
        return reading.document(yaml.parse(text, Loader=yaml.SafeLoader)), reading.problems
    except NotATree as stop:
        reading.problem(stop.place, stop.message)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(before.count("\n") + 1, error.position - before.rfind("\n"), override)
        reading.problem(place, f"a character that YAML does not allow: {quoted(text[error.position])}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if indented := _indented_beginning(text, error.problem or ""):
            reading.problem(
                Place(indented, 1, override),
                f"line {indented} is indented, those below are not: begin it at the left margin",
            )
            return None, reading.problems
        place = Place(mark.line + 1, mark.column + 1, override) if mark else Place(override=override)
        reading.problem(place, _syntax(error.problem or error.context or "unreadable"))
    return None, reading.problems


def _syntax(message: str) -> str:
    for beginning, meaning in _SYNTAX.items():
        if message.startswith(beginning):
            return f"not YAML: {meaning}"
    return f"not YAML: {escaped(message)}"


def _indented_beginning(text: str, message: str) -> int | None:
    """The number of the first line that is not blank, if the error is that only this line is indented."""
    if not message.startswith("expected '<document start>'"):
        return None
    lines = enumerate(text.split("\n"), start=1)
    number, line = next((each for each in lines if each[1].strip() and not each[1].lstrip().startswith("#")), (0, ""))
    return number if line[:1] == " " else None


class _Reading:
    """One pass over the events of a text."""

    def __init__(self, path: str, override: str) -> None:
        self.path = path
        self.override = override
        self.problems: list[Problem] = []
        self.anchors: dict[str, Node] = {}
        self.nodes = 0

    def problem(self, place: Place, message: str) -> None:
        self.problems.append(Problem(self.path, place, message))

    def place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(mark.line + 1, mark.column + 1, self.override) if mark else Place(override=self.override)

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        root = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise NotATree(self.place(event), "a second document (---): one file is one job")
                root = self.node(next(events), events, depth=1)
        return root

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        place = self.place(event)
        self.nodes += 1
        if isinstance(event, yaml.AliasEvent):
            node = self.alias(event, place)
        else:
            self.check_tag(event, place)
            if isinstance(event, yaml.MappingStartEvent):
                node = self.mapping(place, events, depth)
            elif isinstance(event, yaml.SequenceStartEvent):
                node = self.list(place, events, depth)
            elif isinstance(event, yaml.ScalarEvent):
                node = self.scalar(event, place)
            else:
                raise NotATree(place, "not YAML: a value is missing")
        if depth + node.height - 1 > MAX_DEPTH:
            raise NotATree(place, f"nested deeper than {MAX_DEPTH} levels: this is not a job file")
        if self.nodes > MAX_NODES:
            raise NotATree(place, f"more than {MAX_NODES:,} values, aliases expanded: this is not a job file")
        if isinstance(event, yaml.NodeEvent) and event.anchor and not isinstance(event, yaml.AliasEvent):
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: yaml.AliasEvent, place: Place) -> Node:
        anchor = event.anchor or ""
        if anchor not in self.anchors:
            raise NotATree(place, f"not YAML: *{escaped(anchor)} is not defined above this line")
        node = self.anchors[anchor]
        self.nodes += node.size
        return node

    def check_tag(self, event: yaml.Event, place: Place) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            self.problem(place, f"tags are not allowed in a job file: write the value without {quoted(tag)}")

    def mapping(self, place: Place, events: Iterator[yaml.Event], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise NotATree(place, f"nested deeper than {MAX_DEPTH} levels: this is not a job file")
        entries: dict[str, Entry] = {}
        merged: list[Entry] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.node(event, events, depth + 1)
            node = self.node(next(events), events, depth + 1)
            if key.text == "<<" and (
                node.kind == "mapping" or all(item.kind == "mapping" for item in node.items or [node])
            ):
                merged += [entry for base in node.items or [node] for entry in base.entries.values()]
            elif key.kind != "scalar":
                self.problem(key.place, "a key must be a word, not a list or a mapping")
            elif key.text in entries:
                first = entries[key.text].place.line
                self.problem(key.place, f"{quoted(key.text)} is given twice (first on line {first})")
            else:
                entries[key.text] = Entry(key.text, self.place(event), node)
        for entry in merged:  # keys of the mapping itself win, then those of the first merged mapping
            entries.setdefault(entry.key, entry)
        below = [entry.node for entry in entries.values()]
        return Node(place, "mapping", entries=entries, size=_size(below), height=_height(below))

    def list(self, place: Place, events: Iterator[yaml.Event], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise NotATree(place, f"nested deeper than {MAX_DEPTH} levels: this is not a job file")
        items = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.node(event, events, depth + 1))
        return Node(place, "list", items=tuple(items), size=_size(items), height=_height(items))

    def scalar(self, event: yaml.ScalarEvent, place: Place) -> Node:
        # JSON spells a character beyond the first 65,536 (an emoji) as two halves, and PyYAML leaves them apart.
        text: str = event.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            self.problem(place, "text with a NUL or half a character in it")
            text = text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
        if not event.implicit[0]:  # in quotes, a block, or tagged
            return Node(place, value=text, text=text)
        try:
            return Node(place, value=_scalar(text), text=text)
        except ValueError:
            self.problem(place, f"{quoted(text)} is too large a number")
            return Node(place, value=0, text=text)


def _size(below: list[Node]) -> int:
    return 1 + sum(node.size for node in below)


def _height(below: list[Node]) -> int:
    return 1 + max((node.height for node in below), default=0)


def _scalar(text: str) -> str | int | float | bool | None:
    """A plain scalar by the core schema of YAML 1.2. ValueError for a whole number that no field could hold."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 400:
        return text
    if _INT.fullmatch(text):
        number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if abs(number) >= 1 << 63:
            raise ValueError("too large")
        return number
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
