"""From the ``settings`` of a job to the recipe's dataclass, on the box.

The laptop has checked them already, with pydantic; those of a job started by hand nobody has. So the bounds are checked here too.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import typing
from typing import Any, Literal, Union

from remote_payload.settings.training import RETIRED

# The bounds of ``setting(…)``, in words and as what has to hold.
BOUNDS = {
    "gt": ("greater than", operator.gt),
    "ge": ("at least", operator.ge),
    "lt": ("less than", operator.lt),
    "le": ("at most", operator.le),
}


class SettingError(ValueError):
    """A setting that the recipe does not know or cannot use; the message names it by its path in the job file."""


def read_settings(kind: Any, values: Any, where: str = "settings") -> Any:
    """An instance of the dataclass ``kind`` from a mapping as JSON gives it, groups included.

    Raises SettingError for an unknown name (with the nearest known one), a missing one or a value of another type.
    """
    if not isinstance(values, dict):
        raise SettingError("%s: expected a mapping, got %r" % (where, values))
    types = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise SettingError("%s.%s: no such setting%s" % (where, name, _advice(name, list(fields))))
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SettingError("%s.%s: is required: %s" % (where, name, field.metadata.get("description", "")))
    given = {name: _convert(types[name], value, "%s.%s" % (where, name)) for name, value in values.items()}
    for name, value in given.items():
        _check_bounds(value, fields[name].metadata, "%s.%s" % (where, name))
    return kind(**given)


def _check_bounds(value: Any, checks: typing.Mapping[str, Any], where: str) -> None:
    """Raises SettingError for a number outside the bounds of its setting or without end, and for a list that repeats itself."""
    if isinstance(value, list) and checks.get("unique") and repeated(value):
        raise SettingError("%s: names %r more than once" % (where, repeated(value)[0]))
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if not math.isfinite(value):
        raise SettingError("%s: expected a number, got %r" % (where, value))
    for name, (words, holds) in BOUNDS.items():
        if name in checks and not holds(value, checks[name]):
            raise SettingError("%s: must be %s %g, got %r" % (where, words, checks[name], value))


def repeated(values: typing.Sequence[Any]) -> typing.List[Any]:
    """What is in a list more than once; 1 and "1" are two things."""
    return [value for at, value in enumerate(values) if value in values[:at]]


def _advice(name: str, known: typing.List[str]) -> str:
    if name in RETIRED:
        return " any more; " + RETIRED[name]
    near = difflib.get_close_matches(str(name), known, n=1)
    return "; did you mean %s?" % near[0] if near else "; there are %s" % ", ".join(known)


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return read_settings(kind, value, where)
    if origin is Union:
        return _first_that_fits(arguments, value, where)
    if origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
    elif origin is list and isinstance(value, (list, tuple)):
        return [_convert(arguments[0], item, "%s[%d]" % (where, index)) for index, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return {str(key): _convert(arguments[1], item, "%s.%s" % (where, key)) for key, item in value.items()}
    elif kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # a string too: YAML 1.1 reads 3e-4 as one
        except ValueError:
            pass
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise SettingError("%s: expected %s, got %r" % (where, _spell(kind), value))


def _first_that_fits(kinds: Any, value: Any, where: str) -> Any:
    groups = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if groups and isinstance(value, dict):  # its own message names what is wrong inside
        return read_settings(groups[0], value, where)
    for kind in kinds:
        try:
            return _convert(kind, value, where)
        except SettingError:
            continue
    raise SettingError("%s: expected %s, got %r" % (where, " or ".join(_spell(kind) for kind in kinds), value))


def _spell(kind: Any) -> str:
    if kind is type(None):
        return "null"
    if typing.get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(kind))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(kind, str(kind).replace("typing.", ""))
