"""What the runs of a sweep measured, over the seeds of each experiment: mean, standard deviation and count."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from runner.domain.answers.results import Evaluation
from runner.domain.comparison.metrics import WHOLE
from runner.workflow.sweeping.find import experiment_of
from runner.workflow.sweeping.look import Row


@dataclass(frozen=True)
class Mean:
    """One metric of one evaluation, over the runs of an experiment that succeeded.

    ``deviation`` is the sample standard deviation, divided by ``count - 1``; None for one value. ``count`` is how many runs have the
    value, ``runs`` how many the experiment has.
    """

    experiment: str
    evaluation: str
    metric: str
    mean: float
    deviation: float | None
    count: int
    runs: int


def summarise(rows: Sequence[Row]) -> list[Mean]:
    """For each experiment, evaluation and metric: the last value of each run counts. In the order in which they first appear, the
    chosen model and the evaluation of everything before the single sets.

    Runs that have not succeeded do not count: their last evaluation is one of a model that was not finished.
    """
    experiments: dict[str, list[Row]] = {}
    for row in rows:
        experiments.setdefault(experiment_of(row.part.first), []).append(row)
    measured = {
        name: [row.results.measured if row.results and row.succeeded else () for row in members]
        for name, members in experiments.items()
    }
    return [mean for name, runs in measured.items() for mean in means_of(name, runs)]


def means_of(experiment: str, runs: Sequence[Sequence[Evaluation]]) -> list[Mean]:
    """The same for one experiment: what each of its runs measured, nothing for one that does not count."""
    values: dict[tuple[str, str], list[float]] = {}
    for measured in runs:
        for evaluation in measured:
            for metric, value in evaluation.metrics.items():
                values.setdefault((evaluation.name, metric), []).append(value)
    ordered = sorted(values.items(), key=lambda each: WHOLE.index(each[0][0]) if each[0][0] in WHOLE else len(WHOLE))
    return [
        Mean(experiment, evaluation, metric, statistics.fmean(found), _deviation(found), len(found), len(runs))
        for (evaluation, metric), found in ordered
    ]


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
