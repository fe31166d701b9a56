"""The fields of a job by their dotted paths, so that jobs can be compared field by field.

A field that was not given and one that was given as its default are the same: the defaults of the job and of its recipe are
filled in. ``null`` is the same as not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.domain.comparison.recipe import Recipe, recipe_of
from runner.domain.comparison.rows import Row, differing, same
from runner.domain.job import Job

LEFT_OUT = ("name", "sweep")  # a name for the run, and which others were submitted with it: not what it did


@dataclass(frozen=True)
class Changed:
    """A field whose value is not its default. A field that must be given has the default None."""

    name: str
    value: object
    default: object


def settings_of(job: Job, recipe: Recipe | None = None) -> dict[str, object]:
    """Every field of the job that has a value, by its path (``settings.optimizer.learning_rate``, ``resources.gpus``), in the order of a
    job file, the recipe's settings first.

    ``recipe`` is needed for a recipe of the user's own, whose defaults stand in its file.
    """
    fields = {name: value for name, value in job.wire().items() if name not in LEFT_OUT}
    settings = (recipe or recipe_of(job)).fill(fields.pop("settings"))
    return flatten({"recipe": fields.pop("recipe"), "command": fields.pop("command"), "settings": settings, **fields})


def changed_settings(job: Job, recipe: Recipe | None = None) -> tuple[Changed, ...]:
    """The fields of the job that differ from their defaults, in the same order."""
    recipe = recipe or recipe_of(job)
    blank = settings_of(Job(job.name), Recipe(recipe.settings))
    found = settings_of(job, recipe)
    names = [*found, *(name for name in blank if name not in found)]
    changed = [Changed(name, found.get(name), blank.get(name)) for name in names]
    return tuple(each for each in changed if not same(each.value, each.default))


def differing_settings(jobs: Sequence[Job], recipes: Sequence[Recipe] | None = None) -> tuple[Row, ...]:
    """The fields that are not the same for all jobs, each with its value in each of them."""
    known = recipes or [recipe_of(job) for job in jobs]
    return differing([settings_of(job, recipe) for job, recipe in zip(jobs, known, strict=True)])


def flatten(value: Mapping[str, object], before: str = "") -> dict[str, object]:
    """Nested objects as one, its names joined by dots, without what is None. Lists are values."""
    found: dict[str, object] = {}
    for name, each in value.items():
        if isinstance(each, Mapping):
            found.update(flatten(each, f"{before}{name}."))
        elif each is not None:
            found[before + name] = each
    return found
