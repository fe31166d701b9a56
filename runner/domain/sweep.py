"""A job file with a sweep: the runs it stands for, and their names.

    sweep:
      settings.epochs: [1, 5]
      settings.seed: [0, 1, 2, 3, 4]

is every combination: ten runs. Runs that differ in nothing but the seed are repeats of one *experiment*; here there are two,
``NAME-epochs-1`` and ``NAME-epochs-5``, with five runs each. Pure: no file is read and nothing is contacted.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runner.domain.job import Settings

SEED = "settings.seed"
MAX_RUNS = 1000
MAX_NAME = 48  # of a run id's readable part (remote_payload/agent/wire/paths.py)


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep. ``overrides`` are its values by dotted path, as ``--set`` would give them."""

    name: str
    experiment: str
    overrides: Settings


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
    ordered = sorted(axes, key=lambda path: path != SEED)  # the seed outermost, the others as written
    runs = [_run(name, dict(zip(ordered, values, strict=True)), list(axes)) for values in _product(axes, ordered)]
    _check_names(runs)
    return runs


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
    experiment = _slug("-".join([name, *(part for path, part in parts.items() if path != SEED)]))
    return SweepRun(
        name=_slug("-".join([experiment, parts[SEED]])) if SEED in parts else experiment,
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
