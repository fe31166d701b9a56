"""A sweep is the runs of one submission, with those that resume them. This file turns what was typed into a sweep, or into runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner import store
from runner.domain.errors import NotStarted, UnknownRun
from runner.domain.run import Run
from runner.workflow.observing.listing import stories


@dataclass(frozen=True)
class Part:
    """One place of a sweep: the run that was submitted, and those that resumed it, oldest first."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run that was submitted: its overrides are its own values of the sweep."""
        return self.runs[0]

    @property
    def newest(self) -> Run:
        """The run that counts: the newest that may be on a box, else the newest."""
        return next((run for run in reversed(self.runs) if run.may_be_there), self.runs[-1])


@dataclass(frozen=True)
class Sweep:
    """The parts of one submission, in the order in which they were submitted."""

    id: str
    parts: tuple[Part, ...]

    @property
    def newest(self) -> list[Run]:
        """The run that counts of each part."""
        return [part.newest for part in self.parts]

    @property
    def experiments(self) -> dict[str, list[Part]]:
        """The parts by experiment. A run of no experiment stands under its job's name."""
        found: dict[str, list[Part]] = {}
        for part in self.parts:
            found.setdefault(experiment_of(part.first), []).append(part)
        return found

    @property
    def differing(self) -> dict[str, dict[str, str]]:
        """By the id of each part's first run: the overrides (``--set``, and the sweep's values) that are not the same for all of them."""
        given = {part.first.run_id: _overrides(part.first) for part in self.parts}
        keys = dict.fromkeys(key for each in given.values() for key in each)
        vary = [key for key in keys if len({each.get(key) for each in given.values()}) > 1]
        return {run_id: {key: each[key] for key in vary if key in each} for run_id, each in given.items()}


def find_sweep(name: str | None) -> Sweep:
    """The sweep of that id; else the newest submission of that job, job file or experiment; else that of the run. None: the newest of all.

    Raises UnknownRun for a name that stands for none of these.
    """
    runs = store.load_all()[0]
    if name is None:
        return _sweep(store.find(None), runs)
    if of_sweep := [run for run in runs if sweep_id(run) == name] or _named(name, runs):
        return _sweep(of_sweep[-1], runs)
    try:
        return _sweep(store.find(name), runs)
    except UnknownRun as error:
        if " fits " in error.message:
            raise
        raise UnknownRun(
            f"this machine knows no sweep, job or run {name!r}",
            hint="gpurun list shows the runs of this machine, and the sweep of each.",
        ) from None


@dataclass(frozen=True)
class Chosen:
    """The runs that names stand for, without doubles. ``several``: there are several names, or one of them is a sweep's."""

    runs: list[Run]
    several: bool


def find_started_runs(names: Sequence[str], of_sweep: Callable[[Run], bool] = lambda run: True) -> Chosen:
    """For commands that take runs and sweeps: of a sweep the newest runs that were started and for which ``of_sweep`` holds.

    Without a name the newest run. Raises as ``store.find_started`` does, NotStarted for a sweep of which nothing was.
    """
    found: dict[str, Run] = {}
    sweeps = {name: as_sweep(name) for name in names or (None,)}
    for name, sweep in sweeps.items():
        runs = [store.find_started(name)] if sweep is None else started(sweep, of_sweep)
        found.update((run.run_id, run) for run in runs)
    return Chosen(list(found.values()), len(names) > 1 or any(sweeps.values()))


def runs_of(names: Sequence[str]) -> list[Run]:
    """For commands that look at records alone: each run by its name, of a sweep the newest run of each part, started or not.

    In the order of the names, once for each time that it was named. Raises UnknownRun.
    """
    found: list[Run] = []
    for name in names:
        sweep = as_sweep(name)
        found += [store.find(name)] if sweep is None else sweep.newest
    return found


def as_sweep(name: str | None) -> Sweep | None:
    """The sweep that a name stands for in a command that takes runs: an id of one, or a name that stands for no single run."""
    if name is None:
        return None
    try:
        store.find(name)
        return None
    except UnknownRun:
        runs = store.load_all()[0]
    of_sweep = [run for run in runs if run.submission == name] or _named(name, runs)
    return _sweep(of_sweep[-1], runs) if of_sweep else None


def sweep_of(run: Run) -> Sweep:
    """The sweep that a run belongs to."""
    return _sweep(run, store.load_all()[0])


def started(sweep: Sweep, which: Callable[[Run], bool]) -> list[Run]:
    """Those of the newest runs of the sweep that may be on a box for which ``which`` holds. Raises NotStarted where none was started."""
    found = [run for run in sweep.newest if run.may_be_there]
    if not found:
        raise NotStarted(
            f"no run of the sweep {sweep.id} was started",
            meaning="Nothing was done.",
            hint=f"gpurun sweep {sweep.id} shows why.",
        )
    return [run for run in found if which(run)]


def sweep_id(run: Run) -> str:
    """The id of the run's sweep. A run of an older gpurun, which noted none, is a sweep of its own."""
    return run.submission or run.run_id


def experiment_of(run: Run) -> str:
    """What runs have in common that differ in their seed alone."""
    return run.experiment or run.job.name


def _sweep(run: Run, runs: Sequence[Run]) -> Sweep:
    members = [other for other in runs if sweep_id(other) == sweep_id(run)]
    parts = [Part(tuple(story)) for story in stories(members)]
    return Sweep(sweep_id(run), tuple(sorted(parts, key=lambda part: members.index(part.first))))


def _named(name: str, runs: Sequence[Run]) -> list[Run]:
    """The runs of a job, a job file or an experiment of that name; the name of a sweep's job begins those of its experiments."""
    return [
        run
        for run in runs
        if name in (run.job.name, run.experiment)
        or (run.job.file is not None and name in (run.job.file.stem, run.job.file.name, str(run.job.file)))
        or (run.experiment or "").startswith(f"{name}-")
    ]


def _overrides(run: Run) -> dict[str, str]:
    """``settings.epochs=5`` as ``{"epochs": "5"}``; the name that a sweep gives its runs is not one of its values."""
    pairs = [each.partition("=") for each in run.job.overrides or ()]
    given = {key.strip(): value.strip().strip('"') for key, _, value in pairs if key.strip() not in ("name", "sweep")}
    short = [key.rpartition(".")[2] for key in given]
    return {last if short.count(last) == 1 else key: given[key] for key, last in zip(given, short, strict=True)}
