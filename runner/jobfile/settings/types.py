"""A recipe's settings as pydantic can check them.

The dataclasses are the standard library's, with bounds in each field's metadata. pydantic reads those, but applies them to the whole of a
union: ``ge=1`` on ``Union[int, Literal["auto"]]`` compares "auto" with 1 (a TypeError, pydantic 2.14). Here they go to the numbers in it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import AfterValidator, Field

from remote_payload.settings.reading import repeated

_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of")


def checkable(kind: Any) -> Any:
    """A dataclass like ``kind`` (a subclass, so that its ``__post_init__`` runs) whose bounds apply to the numbers in its types."""
    hints = typing.get_type_hints(kind)
    fields = [(field.name, *_field(hints[field.name], field)) for field in dataclasses.fields(kind)]
    twin = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,))
    twin.__doc__ = kind.__doc__
    return twin


def _field(hint: Any, field: dataclasses.Field[Any]) -> tuple[Any, Any]:
    """The type with its bounds, and the field with the rest of its metadata."""
    bounds = {name: value for name, value in field.metadata.items() if name in _BOUNDS}
    rest = {name: value for name, value in field.metadata.items() if name not in _BOUNDS}
    bounded = _bounded(hint, bounds)
    if rest.pop("unique", False):
        bounded = Annotated[
            bounded, AfterValidator(_without_repetitions), Field(json_schema_extra={"uniqueItems": True})
        ]
    if field.default is not dataclasses.MISSING:
        return bounded, dataclasses.field(default=field.default, metadata=rest)
    if field.default_factory is not dataclasses.MISSING:
        factory = bounded if dataclasses.is_dataclass(hint) else field.default_factory
        return bounded, dataclasses.field(default_factory=factory, metadata=rest)
    return bounded, dataclasses.field(metadata=rest)


def _bounded(hint: Any, bounds: Mapping[str, Any]) -> Any:
    if dataclasses.is_dataclass(hint):
        return checkable(hint)
    if typing.get_origin(hint) is Union:
        return Union[tuple(_bounded(member, bounds) for member in typing.get_args(hint))]  # noqa: UP007
    return Annotated[hint, Field(**bounds)] if bounds and hint in (int, float) else hint


def _without_repetitions(values: Any) -> Any:
    twice = repeated(values or [])
    if twice:
        raise ValueError(f"names {twice[0]!r} more than once")
    return values
