"""What models were measured to be, side by side."""

from __future__ import annotations

from typing import TypedDict


class ConfusionMatrix(TypedDict):
    labels: list[str]
    counts: list[list[int]]


class EvaluatedColumn(TypedDict):
    name: str
    model: str
    base: bool
    asking: str
    kind: str
    device: str
    dtype: str
    rows: str
    metrics: dict[str, float]
    sets: dict[str, dict[str, float]]
    confusion: ConfusionMatrix | None


class MetricDifference(TypedDict):
    metric: str
    examples: int
    mean: float
    low: float
    high: float
    better: list[str]
    worse: list[str]


class ComparedColumns(TypedDict):
    one: str
    other: str
    differences: list[MetricDifference]


class WorseMetric(TypedDict):
    column: str
    against: str
    metric: str
    value: float
    other: float
    tolerance: float


class Evaluate(TypedDict):
    folder: str
    data: str
    sha256: str
    examples: int
    columns: list[EvaluatedColumn]
    compared: list[ComparedColumns]
    against: str | None
    worse: list[WorseMetric]
    passed: bool
