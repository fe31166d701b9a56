"""A reader for a dataclass, made from the types of its fields: what two of our own processes send each other has no other description.

``str`` is text for people, cleaned and cut (``reading.text``), ``int`` a whole number from 0, ``float`` a finite one; ``Path``,
``X | None``, ``tuple[X, ...]``, ``dict[str, X]`` and dataclasses are read as they are written. ``Annotated[str, "verbatim"]`` is text
unchanged, ``Annotated[float, "seconds"]`` a length of time. A field with a default may be missing.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from remote_payload.settings.reading import SettingError, read_settings
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    Reader,
    boolean,
    finite_number,
    list_of,
    mapping_of,
    optional,
    string,
    text,
    time_in_seconds,
    whole,
)

T = TypeVar("T")
SETTINGS = "remote_payload.settings."  # dataclasses with bounds of their own

_PLAIN: dict[Any, Reader[Any]] = {
    str: text,
    int: whole,
    float: finite_number,
    bool: boolean,
    Path: lambda value: Path(string(value)),
    object: lambda value: value,
}
_MARKED: dict[str, Reader[Any]] = {"verbatim": string, "seconds": time_in_seconds}


def reader_of(kind: Callable[..., T]) -> Reader[T]:
    """Reads an object as the dataclass ``kind``. The reader raises Impossible naming the field that is not as its type says."""
    found: Reader[T] = _reader_of(kind)
    return found


@functools.cache
def _reader_of(kind: Any) -> Reader[Any]:
    if kind.__module__.startswith(SETTINGS):
        return functools.partial(_settings, kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    readers = {each.name: _otherwise(_reader(hints[each.name]), each) for each in dataclasses.fields(kind)}
    return lambda value: _read(kind, readers, Fields(value))


def _read(kind: Any, readers: dict[str, Reader[Any]], value: Fields) -> Any:
    return kind(**{name: value(name, read) for name, read in readers.items()})


def _reader(hint: Any) -> Reader[Any]:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is typing.Annotated:
        return _MARKED[inside[1]]
    if origin in (typing.Union, types.UnionType):
        return optional(_reader(inside[0]))
    if origin is tuple:
        return list_of(_reader(inside[0]))
    if origin is dict:
        return mapping_of(_reader(inside[1]))
    return _reader_of(hint)


def _otherwise(read: Reader[Any], field: dataclasses.Field[Any]) -> Reader[Any]:
    """The same, or the field's default for null."""
    if field.default_factory is not dataclasses.MISSING:
        make = field.default_factory
    elif field.default is not dataclasses.MISSING:
        make = lambda: field.default  # noqa: E731
    else:
        return read
    return lambda value: make() if value is None else read(value)


def _settings(kind: Any, value: object) -> Any:
    try:
        return read_settings(kind, value)
    except SettingError as error:
        raise Impossible(str(error)) from None
