"""What a run's evaluations measured, as tables, the best value of each metric marked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from remote_payload.settings.metrics import is_higher_better
from runner.domain.answers.results import Evaluation
from runner.domain.comparison.recipe import Recipe
from runner.domain.history import Curves, History
from runner.report.blocks import Table
from runner.workflow.reporting.words import figure

ROWS = 60  # of one table: the newest, and those with a best value
SETS = 30
METRICS = 40


def evaluation_tables(history: History, recipe: Recipe, chosen: Evaluation | None) -> list[Table]:
    """A table for each evaluation set: a row for each evaluation, a column for each metric."""
    return [_table(name, curves, recipe, chosen) for name, curves in list(history.evaluations.items())[:SETS]]


def _table(name: str, curves: Curves, recipe: Recipe, chosen: Evaluation | None) -> Table:
    metrics = list(curves)[:METRICS]
    values: dict[int, dict[str, float]] = {}
    for metric in metrics:
        for step, value in zip(curves[metric].steps, curves[metric].values, strict=True):
            values.setdefault(step, {})[metric] = value
    best = {metric: step_of_best(values, metric, better(recipe, metric)) for metric in metrics}
    kept = sorted({*sorted(values)[-ROWS:], *(step for step in best.values() if step is not None)})
    marked = frozenset(
        (row, column)
        for column, metric in enumerate(metrics, 1)
        for row, step in enumerate(kept)
        if step == best[metric]
    )
    rows = [[_step(step, chosen), *(figure(values[step].get(metric)) for metric in metrics)] for step in kept]
    notes = ["The best of each metric is marked."] if marked else []
    notes += [f"{len(values) - len(kept)} earlier evaluations are in the curves."] if len(kept) < len(values) else []
    return Table([f"{name}: step", *metrics], rows, marked, " ".join(notes))


def _step(step: int, chosen: Evaluation | None) -> str:
    return f"{step:,}" + (" (chosen)" if chosen is not None and chosen.step == step else "")


def step_of_best(values: Mapping[int, Mapping[str, float]], metric: str, more_is_better: bool | None) -> int | None:
    """The first step with the best value; None where all are the same, there is one, or it is not known which way is better."""
    found = {
        step: each[metric] for step, each in sorted(values.items()) if metric in each and not math.isnan(each[metric])
    }
    if more_is_better is None or len(set(found.values())) < 2:
        return None
    best = max(found.values()) if more_is_better else min(found.values())
    return next(step for step, value in found.items() if value == best)


def better(recipe: Recipe, metric: str) -> bool | None:
    """Whether more of it is better, as the recipe says; of a loss less is, whoever wrote it."""
    way = is_higher_better(recipe.metrics, metric)
    return False if way is None and metric.lower().endswith("loss") else way
