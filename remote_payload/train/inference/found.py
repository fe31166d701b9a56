"""What was measured of one model asked in one way: metrics over all examples, over each set, and every example by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeVar

from remote_payload.recipes.evaluated import Confusion

Say = Callable[[str], None]
Metrics = dict[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One example: ``line`` is what was asked and answered, ``metrics`` its own. Both go into a line of the file."""

    id: str
    set: str
    line: Mapping[str, Any]
    metrics: Metrics

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "set": self.set, **self.line, "metrics": self.metrics}


@dataclass(frozen=True)
class Found:
    """``sets`` is empty where the data has no sets; ``confusion`` is a classifier's."""

    rows: list[Row]
    metrics: Metrics
    sets: dict[str, Metrics] = field(default_factory=dict)
    confusion: Confusion | None = None


def by_set(rows: Sequence[Row], items: Sequence[T], over: Callable[[Sequence[T]], Metrics]) -> dict[str, Metrics]:
    """``over`` the items of each set, in the order of the data; ``rows`` say which set each item is of. Empty where none names one."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.set, []).append(place)
    if set(places) == {""}:
        return {}
    return {name: over([items[place] for place in inside]) for name, inside in places.items()}


def mean_over_sets(sets: Mapping[str, Metrics]) -> Metrics:
    """``sets/NAME``: the mean of each metric that all sets have; each set has the same weight."""
    first, *others = sets.values() or [{}]
    shared = [name for name in first if all(name in each for each in others)]
    return {f"sets/{name}": fmean(each[name] for each in sets.values()) for name in shared}


def flattened(scores: Mapping[str, float | dict[str, float]]) -> Metrics:
    """Figures inside of others as ``outer/inner``."""
    found: Metrics = {}
    for name, value in scores.items():
        inside = (
            {f"{name}/{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
        )
        found |= {each: float(number) for each, number in inside.items()}
    return found
