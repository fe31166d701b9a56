"""The runs of one submission, and what they measured."""

from __future__ import annotations

from typing import TypedDict

from runner.cli.documents.runs import RunNow


class Evaluation(TypedDict):
    name: str
    step: int | None
    metrics: dict[str, float]


class SweepRun(RunNow):
    settings: dict[str, str]
    earlier: list[str]
    cost_with_earlier: float | None
    complete: bool
    evaluations: list[Evaluation]
    best: Evaluation | None
    final_bytes: int | None
    checkpoints: int | None
    checkpoint_bytes: int | None


class Mean(TypedDict):
    experiment: str
    evaluation: str
    metric: str
    mean: float
    deviation: float | None
    count: int
    runs: int


class Sweep(TypedDict):
    sweep: str
    runs: list[SweepRun]
    means: list[Mean]
