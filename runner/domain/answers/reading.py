"""Typed values from JSON that may be wrong: a box's answer, or a file that may be damaged.

A *reader* takes any JSON value and gives a checked one, or raises Impossible. ``Fields`` applies readers to the fields of an object,
so that an error names the path of the wrong value (``runs[2].started_at``). Readers of text for people remove control sequences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from runner.domain.terminal import clean

T = TypeVar("T")
Reader = Callable[[object], T]

LARGEST = 1 << 62  # the largest whole number
MAX_TEXT = 4096  # characters; longer text is truncated
MAX_ITEMS = 1_000_000
MAX_DEPTH = 12  # levels of a value of unknown shape
FARTHEST = 1e300  # the largest size of a number of unknown meaning: beyond it arithmetic overflows


class Impossible(ValueError):
    """An impossible value: of the wrong type, or out of its bounds. ``path`` names it from the root of the document."""

    def __init__(self, why: str, path: str = "") -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.why = why
        self.path = path

    def inside(self, outer: str) -> Impossible:
        """The same error with ``outer``, the name of the enclosing field or index, before its path."""
        joined = outer if not self.path else f"{outer}{'' if self.path.startswith('[') else '.'}{self.path}"
        return Impossible(self.why, joined)


class Fields:
    """The fields of one JSON object, read by name. A field that is missing reads as null."""

    def __init__(self, value: object) -> None:
        if isinstance(value, Fields):
            value = value._value
        if not isinstance(value, dict):
            raise Impossible(f"{shown(value)} is not an object")
        self._value: Mapping[str, object] = value

    def __call__(self, name: str, read: Reader[T]) -> T:
        """The field's value, checked by ``read``. Raises Impossible naming the field."""
        try:
            return read(self._value.get(name))
        except Impossible as error:
            raise error.inside(name) from None


def shown(value: object) -> str:
    """A value as an error message shows it: short, and without control sequences."""
    if value is None:
        return "nothing"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= LARGEST:
        return "a number that is too large"  # Python refuses to print the longest of them
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return clean(ascii(value) if isinstance(value, str) else repr(value), 80)


def string(value: object) -> str:
    """Text, unchanged: it is parsed or cleaned elsewhere."""
    if not isinstance(value, str):
        raise Impossible(f"{shown(value)} is not text")
    return value


def text(value: object) -> str:
    """Text of one or several lines without control sequences, truncated to MAX_TEXT characters."""
    value = string(value)
    return "\n".join(clean(line, MAX_TEXT) for line in value[: 4 * MAX_TEXT].splitlines())[:MAX_TEXT]


def matching(pattern: re.Pattern[str]) -> Reader[str]:
    """Text that matches the whole pattern."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Impossible(f"{shown(value)} does not have the required form")
        return value

    return read


_SINGLE_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]{0,4096}")


def single_line(value: object) -> str:
    """Text on one line, unchanged, such as a name or a path of this machine. Bytes that are not UTF-8 (surrogate escapes) are kept."""
    return matching(_SINGLE_LINE)(value)


_PATH = re.compile(r"/[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,4095}")


def absolute_path(value: object) -> str:
    """An absolute path on the box."""
    return matching(_PATH)(value)


def one_of(allowed: Iterable[str]) -> Reader[str]:
    """One of the given words."""
    words = tuple(allowed)

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise Impossible(f"{shown(value)} is none of {', '.join(words)}")
        return value

    return read


def boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Impossible(f"{shown(value)} is neither true nor false")
    return value


def whole_between(low: int, high: int) -> Reader[int]:
    """A whole number from ``low`` to ``high``, both included."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Impossible(f"{shown(value)} is not a whole number from {low} to {high}")
        return value

    return read


whole = whole_between(0, LARGEST)


def number_between(low: float, high: float) -> Reader[float]:
    """A number from ``low`` to ``high``, both included."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Impossible(f"{shown(value)} is not a number from {low:g} to {high:g}")
        return float(value)

    return read


time_in_seconds = number_between(0, 1e11)  # since the epoch, or a length of time
finite_number = number_between(-FARTHEST, FARTHEST)


def optional(read: Reader[T]) -> Reader[T | None]:
    """Null, or a value that ``read`` accepts."""
    return lambda value: None if value is None else read(value)


def otherwise(default: T, read: Reader[T]) -> Reader[T]:
    """A value that ``read`` accepts; ``default`` for null."""
    return lambda value: default if value is None else read(value)


def list_of(read: Reader[T], limit: int = MAX_ITEMS) -> Reader[tuple[T, ...]]:
    """A list of at most ``limit`` values that ``read`` accepts."""

    def read_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise Impossible(f"{shown(value)} is not a list")
        if len(value) > limit:
            raise Impossible(f"a list of {len(value)} items, and at most {limit} are possible")
        found = []
        for place, each in enumerate(value):
            try:
                found.append(read(each))
            except Impossible as error:
                raise error.inside(f"[{place}]") from None
        return tuple(found)

    return read_all


def mapping_of(read: Reader[T], limit: int = MAX_ITEMS) -> Reader[dict[str, T]]:
    """An object whose names are free and whose values ``read`` accepts, at most ``limit``. Names are cleaned."""

    def read_all(value: object) -> dict[str, T]:
        if not isinstance(value, dict):
            raise Impossible(f"{shown(value)} is not an object")
        if len(value) > limit:
            raise Impossible(f"an object of {len(value)} fields, and at most {limit} are possible")
        found = {}
        for name, each in value.items():
            try:
                found[clean(name, 200)] = read(each)
            except Impossible as error:
                raise error.inside(clean(name, 80)) from None
        return found

    return read_all


def harmless(value: object, depth: int = MAX_DEPTH) -> object:
    """A value of unknown shape, as a user's script wrote it: its text cleaned, null in place of parts that are too deep or too large."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict | list):
        if not depth:
            return None
        if isinstance(value, list):
            return [harmless(each, depth - 1) for each in value]
        return {clean(name, 200): harmless(each, depth - 1) for name, each in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool) and not -FARTHEST <= value <= FARTHEST:
        return None
    return value
