"""Whether a model is worse than another by more than is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from remote_payload.recipes.evaluated import Column
from remote_payload.settings.evaluate import is_more_better

LOWER_ANYWAY = ("latency/", "memory/")  # what costs time and memory: compared only where a tolerance names it
ROUNDING = 1e-9


@dataclass(frozen=True)
class Tolerance:
    """By how much a metric may be worse: ``own`` by name, the others by ``general``. Both are absolute, in the metric's own unit."""

    general: float = 0.0
    own: Mapping[str, float] = field(default_factory=dict)

    def of(self, metric: str) -> float:
        return self.own.get(metric, self.general)


@dataclass(frozen=True)
class Worse:
    """A metric of ``column`` that is worse than that of ``against`` by more than ``tolerance``."""

    column: str
    against: str
    metric: str
    value: float
    other: float
    tolerance: float


def worse_metrics(columns: Sequence[Column], against: Sequence[Column], tolerance: Tolerance) -> list[Worse]:
    """What is worse, of each column that is not a base, compared with the column asked in the same way, or with the only one.

    A metric that only one side has is not compared.
    """
    found = []
    for column in columns:
        other = counterpart(column, against)
        if column.base or other is None:
            continue
        for name, value in column.metrics.items():
            more = _direction(name, tolerance)
            if more is None or name not in other.metrics:
                continue
            lost = (other.metrics[name] - value) * (1 if more else -1)
            if lost > tolerance.of(name) + ROUNDING:
                found.append(Worse(column.name, other.name, name, value, other.metrics[name], tolerance.of(name)))
    return found


def counterpart(column: Column, against: Sequence[Column]) -> Column | None:
    """What a column is held against: the other model asked in the same way, or its only column; None where there is neither."""
    models = [each for each in against if not each.base] or list(against)
    same = [each for each in models if each.asking == column.asking]
    return same[0] if same else models[0] if len(models) == 1 else None


def uncompared(columns: Sequence[Column], against: Sequence[Column], tolerance: Tolerance) -> list[str]:
    """The columns that share no metric with what they are held against: nothing could be found worse of them."""
    found = []
    for column in columns:
        other = counterpart(column, against)
        shared = [name for name in column.metrics if other and name in other.metrics]
        if not column.base and not any(_direction(name, tolerance) is not None for name in shared):
            found.append(column.name)
    return found


def unknown_metrics(tolerance: Tolerance, columns: Sequence[Column]) -> list[str]:
    """Names in the tolerance that no column has, or that have no better end."""
    there = {name for column in columns for name in column.metrics}
    return [name for name in tolerance.own if name not in there or _direction(name, tolerance) is None]


def _direction(metric: str, tolerance: Tolerance) -> bool | None:
    if metric.startswith(LOWER_ANYWAY) and metric in tolerance.own:
        return metric.endswith("per_second")
    return is_more_better(metric)
