"""The JSON value in an answer of a model, which may have reasoning and numbered sources before it and more text after it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

OPENING = re.compile(r"[{\[]")
THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"
NOTHING = object()  # stands for "no JSON found"; it is no JSON value, as null is


def first_json(text: str, kind: type | None = None) -> Any:
    """The JSON value of the text: the whole text if it is JSON, else the first object or array in it; NOTHING if there is none.

    Of several values the first of type ``kind`` (dict or list) counts, so that ``[1] says: {"a": 1}`` gives the object. After a value
    that cannot be read the search goes on behind the place of the error: a value inside a truncated object is no answer.
    """
    for candidate in (text.strip(), without_thoughts(text)):
        try:
            value, end = _read(candidate, 0)
            if end == len(candidate):
                return value
        except (ValueError, RecursionError):
            continue
    first = NOTHING
    for value in _values_in(without_thoughts(text)):
        if kind is None or isinstance(value, kind):
            return value
        first = value if first is NOTHING else first
    return first


def without_thoughts(text: str) -> str:
    """The text after ``</think>``; empty when the reasoning never ends. Some prompts begin it, so the text may have its end alone."""
    rest = text.rpartition(THOUGHT_ENDS)[2].strip()
    return "" if rest.startswith(THOUGHT_BEGINS) else rest


def strict_json(text: str) -> Any:
    """``json.loads`` without Python's extensions (NaN, Infinity). Raises ValueError, also for JSON that is nested too deeply."""
    text = text.strip()
    try:
        value, end = _read(text, 0)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if value is NOTHING or end < len(text):
        raise ValueError("not JSON")
    return value


def _values_in(text: str) -> Iterator[Any]:
    position = 0
    while opening := OPENING.search(text, position):
        try:
            value, position = _read(text, opening.start())
        except json.JSONDecodeError as error:
            position = max(error.pos, opening.end())
            continue
        except RecursionError:
            return
        if value is not NOTHING:
            yield value


def _read(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at ``start`` and where it ends; NOTHING for a value with NaN or a number that is too long."""
    unreadable: list[str] = []

    def whole_number(digits: str) -> int:
        try:
            return int(digits)
        except ValueError:  # over 4,300 digits, Python's limit
            unreadable.append(digits)
            return 0

    decoder = json.JSONDecoder(parse_constant=unreadable.append, parse_int=whole_number)
    value, end = decoder.raw_decode(text, start)
    return (NOTHING if unreadable else value), end
