"""What a comparison has to know of a run's recipe: which settings it has, with which defaults, and which way its metrics are better."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from remote_payload.settings import RECIPES, evaluate, settings_class
from remote_payload.settings.metrics import metrics_of
from runner.domain.job import Job


@dataclasses.dataclass(frozen=True)
class Recipe:
    """``settings`` is the dataclass of its settings; None for a command, and where the recipe's file is not here. ``metrics``: name →
    whether more of it is better."""

    settings: Any = None
    metrics: Mapping[str, bool] = dataclasses.field(default_factory=dict)

    def fill(self, given: Mapping[str, object]) -> dict[str, object]:
        """The settings with all defaults, as nested objects. What is given stays, also where this version has no such setting."""
        return dict(given) if self.settings is None else _filled(self.settings, given)


def recipe_of(job: Job) -> Recipe:
    """Of gpurun's own recipes. Of a command and a recipe of the user's nothing is known: the latter's file has to be read."""
    if job.recipe == "evaluate":
        return Recipe(settings_class(job.recipe), evaluate.METRICS)
    if job.recipe not in RECIPES:
        return Recipe()
    kind = settings_class(job.recipe)
    return Recipe(kind, metrics_of(job.recipe, _filled(kind, job.settings)))


def _filled(kind: Any, given: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        default = _default(field)
        value = given.get(field.name, default)
        is_group = dataclasses.is_dataclass(default)
        if is_group and (value is default or isinstance(value, dict)):
            value = _filled(type(default), {} if value is default else value)  # type: ignore[arg-type]  # the dict of the line above
        if field.name in given or value is not dataclasses.MISSING:
            found[field.name] = value
    return {**found, **{name: value for name, value in given.items() if name not in found}}


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
