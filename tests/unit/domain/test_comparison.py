"""Comparing jobs, trees and measurements, over seeded random ones: what was changed is listed, and nothing else."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import pytest

from remote_payload.settings import RECIPES
from runner.domain.answers.results import Evaluation
from runner.domain.comparison.metrics import measured_rows
from runner.domain.comparison.recipe import Recipe, recipe_of
from runner.domain.comparison.rows import differing, same
from runner.domain.comparison.settings import changed_settings, differing_settings, settings_of
from runner.domain.comparison.trees import File, differing_files
from runner.domain.job import Environment, Job, Resources

SEEDS = range(40)


def another(value: object, draw: random.Random) -> object:
    """A value that is not equal to this one, of the same type where that is possible."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + draw.choice([1, 0.5])
    return f"{value}-{draw.random()}"


def leaves(settings: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all settings in a nested object."""
    return [
        leaf
        for name, value in settings.items()
        for leaf in (leaves(value, (*path, name)) if isinstance(value, dict) else [(*path, name)])
    ]


def put(settings: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        settings = settings.setdefault(name, {})
    settings[path[-1]] = value


def random_job(draw: random.Random) -> Job:
    """A job of a recipe, of whose settings some are given, some as their defaults."""
    name = draw.choice(sorted(RECIPES))
    full = recipe_of(Job("a", recipe=name)).fill({})
    given: dict[str, Any] = {}
    for path in leaves(full):
        value: Any = full
        for part in path:
            value = value[part]
        if draw.random() < 0.3:
            put(given, path, another(value, draw) if draw.random() < 0.5 else value)
    variables = {f"V{number}": "1" for number in range(draw.randrange(3))}
    return Job(
        "a",
        recipe=name,
        settings=given,
        environment=Environment(variables=variables),
        resources=Resources(gpus=draw.randrange(4)),
    )


def changed(job: Job, draw: random.Random) -> tuple[Job, set[str]]:
    """The job with a few fields changed, and their names."""
    known, names = settings_of(job), set()
    settings = copy.deepcopy(job.settings)
    for path in draw.sample(leaves(recipe_of(job).fill(settings)), draw.randrange(5)):
        name = ".".join(("settings", *path))
        put(settings, path, another(known.get(name), draw))
        names.add(name)
    other = replace(job, name="b", settings=settings)
    if draw.random() < 0.5:
        other = replace(other, price_per_hour=draw.random())
        names.add("price_per_hour")
    if draw.random() < 0.5:
        other = replace(other, environment=Environment(variables={**job.environment.variables, "MORE": "x"}))
        names.add("environment.variables.MORE")
    return other, names


@pytest.mark.parametrize("seed", SEEDS)
def test_every_changed_setting_is_listed_and_nothing_else(seed: int) -> None:
    draw = random.Random(seed)
    job = random_job(draw)
    other, names = changed(job, draw)
    there, back = differing_settings([job, other]), differing_settings([other, job])
    assert {row.name for row in there} == names
    assert {(row.name, row.values[::-1]) for row in back} == {(row.name, row.values) for row in there}
    assert differing_settings([job, job, job]) == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_not_given_and_given_as_the_default_are_the_same(seed: int) -> None:
    draw = random.Random(seed)
    job = random_job(draw)
    complete = replace(job, settings=recipe_of(job).fill(job.settings))
    assert differing_settings([job, complete]) == ()
    # What differs from the defaults is all that is needed to write the same job again.
    settings: dict[str, Any] = {}
    for each in changed_settings(job):
        assert not same(each.value, each.default)
        if each.name.startswith("settings."):
            put(settings, tuple(each.name.split(".")[1:]), each.value)
    assert differing_settings([job, replace(job, settings=settings)]) == ()
    assert {each.name for each in changed_settings(Job("a", recipe=job.recipe))} == {"recipe"}


def test_a_command_has_no_defaults_but_those_of_a_job() -> None:
    job = Job("a", command=("python", "train.py", "--lr", "1"))
    other = replace(job, command=("python", "train.py", "--lr", "2"))
    (row,) = differing_settings([job, other, job])
    assert row.name == "command" and row.values[1] == ["python", "train.py", "--lr", "2"]
    assert [each.name for each in changed_settings(other)] == ["command"]


def test_values_are_compared_as_json_has_them() -> None:
    assert same(1, 1.0) and same(float("nan"), float("nan")) and same([1, {"a": 2.0}], (1.0, {"a": 2}))
    assert not same(1, True) and not same(0, False) and not same(None, False) and not same("1", 1)
    assert differing([{"a": 1}, {"b": None}]) == differing([{"a": 1}, {}])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_changed_file_is_listed_and_nothing_else(seed: int) -> None:
    draw = random.Random(seed)
    tree = {f"{draw.choice('abc')}/{number}.py": File(number, f"{number}", 0o644) for number in range(20)}
    other, expected = dict(tree), {}
    for path in draw.sample(sorted(tree), 8):
        change = draw.choice(["removed", "changed", "mode changed"])
        expected[path] = change
        del other[path]
        if change == "changed":
            other[path] = File(draw.randrange(99), "new", 0o644)
        elif change == "mode changed":
            other[path] = replace(tree[path], mode=0o755)
    for number in range(draw.randrange(4)):
        other[f"new/{number}"] = File(1, "x", 0o644)
        expected[f"new/{number}"] = "added"
    there, back = differing_files([tree, other]), differing_files([other, tree])
    assert {row.path: row.change for row in there} == expected
    turned = {"added": "removed", "removed": "added"}
    assert {row.path: turned.get(row.change, row.change) for row in back} == expected
    assert differing_files([tree, tree]) == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_measurements_are_put_side_by_side_and_the_best_is_marked(seed: int) -> None:
    draw = random.Random(seed)
    recipe = Recipe(metrics={"loss": False, "accuracy/<set>": True, "accuracy": True})
    runs = [
        [
            Evaluation(
                name, 1, {metric: float(draw.randrange(4)) for metric in ("loss", "accuracy") if draw.random() < 0.8}
            )
            for name in ("mayors", "models/best")
            if draw.random() < 0.8
        ]
        for _ in range(draw.randrange(2, 5))
    ]
    everything = measured_rows(runs, [recipe] * len(runs), everything=True)
    told = {(row.evaluation, row.metric): row for row in everything}
    assert set(told) == {(each.name, metric) for run in runs for each in run for metric in each.metrics}
    for (name, metric), row in told.items():
        assert row.values == tuple(
            next((each.metrics.get(metric) for each in run if each.name == name), None) for run in runs
        )
        found = [value for value in row.values if value is not None]
        best = max(found) if metric == "accuracy" else min(found)
        marked = {place for place, value in enumerate(row.values) if value == best} if len(set(found)) > 1 else set()
        assert row.best == marked
    assert set(measured_rows(runs, [recipe] * len(runs))) == {row for row in everything if row.differs}
    assert measured_rows([runs[0], runs[0]], [recipe, recipe]) == ()
    names = [row.evaluation for row in everything]
    assert names == sorted(names, key=lambda name: name != "models/best")


def test_where_recipes_disagree_nothing_is_marked() -> None:
    runs = [[Evaluation("validation", 1, {"score": value})] for value in (1.0, 2.0)]
    for ways, best in (
        ([{"score": True}, {}], {1}),
        ([{"score": False}] * 2, {0}),
        ([{"score": True}, {"score": False}], set()),
        ([{}, {}], set()),
    ):
        (row,) = measured_rows(runs, [Recipe(metrics=way) for way in ways])
        assert row.best == best
