"""A job file with a sweep: the runs it stands for, and their names.

    sweep:
      settings.epochs: [1, 5]
      settings.seed: [0, 1, 2, 3, 4]

is every combination: ten runs. Runs that differ in nothing but the seed are repeats of one *experiment*; here there are two,
``NAME-epochs-1`` and ``NAME-epochs-5``, with five runs each. A program of the user's own has its seed in
``environment.variables.SEED``. Pure: no file is read and nothing is contacted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from runner.domain.job import Job, Settings
from runner.domain.run import Run

T = TypeVar("T")
MAX_RUNS = 1000
MAX_NAME = 48  # of a run id's readable part (remote_payload/agent/wire/paths.py)


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep. ``overrides`` are its values by dotted path, as ``--set`` would give them."""

    name: str
    experiment: str
    overrides: Settings


def is_seed(path: str) -> bool:
    """Whether runs that differ in this field of the job alone are repeats: ``settings.seed``, and a variable SEED of one's own program."""
    return path == "settings.seed" or path.lower() == "environment.variables.seed"


def expand(name: str, sweep: Mapping[str, Sequence[object]]) -> list[SweepRun]:
    """The runs of a sweep over the job ``name``, first repeats first: every experiment has one result before any has two.

    Raises ValueError naming the axis for one that is not a list of different values, and for more than MAX_RUNS runs.
    """
    if not sweep:
        return [SweepRun(name, name, {})]
    axes = {path: _values(path, values) for path, values in sweep.items()}
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MAX_RUNS:
        raise ValueError(f"sweep: {count} runs are more than the {MAX_RUNS} that one job file may mean")
    ordered = sorted(axes, key=lambda path: not is_seed(path))  # the seed outermost, the others as written
    runs = [_run(name, dict(zip(ordered, values, strict=True)), list(axes)) for values in _product(axes, ordered)]
    _check_names(runs)
    return runs


def repeats_of(job: Job) -> str:
    """The job but for its name and seed: runs for which it is the same are repeats of one experiment."""
    settings = {key: value for key, value in job.settings.items() if not is_seed(f"settings.{key}")}
    fields = {key: value for key, value in job.wire().items() if key not in ("name", "sweep", "price_per_hour")}
    written = fields["environment"]
    variables = {
        name: value for name, value in written["variables"].items() if not is_seed(f"environment.variables.{name}")
    }
    fields["environment"] = {**written, "variables": variables}
    return json.dumps({**fields, "settings": settings}, sort_keys=True, default=str)


def group_of(run: Run) -> str:
    """A name for the run's repeats: the runs of its submission and experiment that differ in the seed alone. By itself where its
    submission has no id.
    """
    named = f"{run.submission or run.run_id}\n{run.experiment}\n{repeats_of(run.job)}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def take_turns(files: Iterable[Iterable[T]]) -> list[T]:
    """The runs of several job files in one order: the first of each file, then the second of each. So every file has an early result."""
    rounds = itertools.zip_longest(*([[run] for run in runs] for runs in files), fillvalue=[])
    return [run for each in rounds for turn in each for run in turn]


def _product(axes: Mapping[str, Sequence[object]], ordered: Sequence[str]) -> Iterable[tuple[object, ...]]:
    return itertools.product(*(axes[path] for path in ordered))


def _values(path: str, values: object) -> Sequence[object]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"sweep.{path}: expected a list of values, got {values!r}")
    if not values:
        raise ValueError(f"sweep.{path}: no values")
    spelt = [repr(value) for value in values]
    twice = next((value for value in spelt if spelt.count(value) > 1), None)
    if twice:
        raise ValueError(f"sweep.{path}: {twice} is there twice")
    return values


def _run(name: str, overrides: Settings, written: list[str]) -> SweepRun:
    parts = {path: f"{path.rpartition('.')[2]}-{overrides[path]}" for path in written}
    experiment = _slug("-".join([name, *(part for path, part in parts.items() if not is_seed(path))]))
    seeds = [part for path, part in parts.items() if is_seed(path)]
    return SweepRun(
        name=_slug("-".join([experiment, *seeds])) if seeds else experiment,
        experiment=experiment,
        overrides={path: overrides[path] for path in written},
    )


def _slug(text: str) -> str:
    """Lower case, digits and single hyphens; one that is too long ends in a digest instead of its tail."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(slug) <= MAX_NAME:
        return slug
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{slug[: MAX_NAME - 9].rstrip('-')}-{digest}"


def _check_names(runs: Sequence[SweepRun]) -> None:
    """Raises ValueError for two runs with one name: values may differ in ways that a name does not show (1 and "1", slashes)."""
    seen: dict[str, SweepRun] = {}
    for run in runs:
        other = seen.setdefault(run.name, run)
        if other is not run:
            raise ValueError(f"sweep: {other.overrides} and {run.overrides} would both be called {run.name}")
