"""What runs measured, side by side: for each metric of each evaluation a value a run, and which of them is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remote_payload.settings.metrics import is_higher_better
from runner.domain.answers.results import CHOSEN, Evaluation
from runner.domain.comparison.recipe import Recipe

WHOLE = (CHOSEN, "validation")  # shown before the single evaluation sets


@dataclass(frozen=True)
class Measured:
    """One metric of one evaluation. ``values`` are in the order of the runs, None where a run does not have it; ``is_more_better`` is None
    where it is not known."""

    evaluation: str
    metric: str
    values: tuple[float | None, ...]
    is_more_better: bool | None = None

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1

    @property
    def best(self) -> frozenset[int]:
        """Which runs have the best value; none where all that have the metric have the same, or it is not known what is better."""
        found = [value for value in self.values if value is not None]
        if self.is_more_better is None or len(set(found)) < 2:
            return frozenset()
        best = max(found) if self.is_more_better else min(found)
        return frozenset(place for place, value in enumerate(self.values) if value == best)


def measured_rows(
    measured: Sequence[Sequence[Evaluation]], recipes: Sequence[Recipe], *, everything: bool = False
) -> tuple[Measured, ...]:
    """A row for each metric that a run has and that is not the same for all (``everything``: the others too), the chosen model's first.

    ``measured`` has the evaluations of each run, one of each name.
    """
    columns = [
        {(each.name, metric): value for each in run for metric, value in each.metrics.items()} for run in measured
    ]
    keys = dict.fromkeys(key for column in columns for key in column)
    ordered = sorted(keys, key=lambda key: WHOLE.index(key[0]) if key[0] in WHOLE else len(WHOLE))
    found = [
        Measured(name, metric, tuple(column.get((name, metric)) for column in columns), _way(metric, recipes))
        for name, metric in ordered
    ]
    return tuple(row for row in found if everything or row.differs)


def _way(metric: str, recipes: Sequence[Recipe]) -> bool | None:
    """Whether more is better, by the recipes that know; None where they are not of one mind."""
    ways: set[bool | None] = {is_higher_better(recipe.metrics, metric) for recipe in recipes} - {None}
    return ways.pop() if len(ways) == 1 else None
