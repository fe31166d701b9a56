"""A row: one thing that may not be the same for all runs, and its value in each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """``values`` are JSON values in the order of the runs; None where a run does not have it."""

    name: str
    values: tuple[object, ...]

    @property
    def differs(self) -> bool:
        """Whether two runs have different values."""
        return any(not same(self.values[0], value) for value in self.values[1:])


def rows(columns: Sequence[Mapping[str, object]]) -> tuple[Row, ...]:
    """A row for each name that a column has, in the order of their first appearance. A column is what one run has, by name."""
    names = dict.fromkeys(name for column in columns for name in column)
    return tuple(Row(name, tuple(column.get(name) for column in columns)) for name in names)


def differing(columns: Sequence[Mapping[str, object]]) -> tuple[Row, ...]:
    """The rows whose values are not the same for all runs."""
    return tuple(row for row in rows(columns) if row.differs)


def same(first: object, second: object) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are one number, 1 and true are not, and not-a-number is itself."""
    return _canonical(first) == _canonical(second)


def _canonical(value: object) -> str:
    return json.dumps(_plain(value), sort_keys=True, default=str)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
