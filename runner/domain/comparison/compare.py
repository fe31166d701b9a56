"""All of a comparison: what is known of each run, and in what the runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runner.domain.answers.results import Evaluation
from runner.domain.comparison.metrics import Measured, measured_rows
from runner.domain.comparison.recipe import Recipe
from runner.domain.comparison.rows import Row, differing, rows
from runner.domain.comparison.settings import settings_of
from runner.domain.comparison.trees import File, FileRow, differing_files
from runner.domain.job import Job


@dataclass(frozen=True)
class Facts:
    """What is known of one run.

    ``code`` and ``data`` are digests: "" for a run that sent no code, by name for data. ``code_files`` and ``data_files`` are None where
    it is not known here which files they are. ``environment`` and ``course`` (how it went: time, cost, speed) are JSON values by name.
    """

    job: Job
    recipe: Recipe
    code: str = ""
    code_files: Mapping[str, File] | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    data_files: Mapping[str, File] | None = None
    environment: Mapping[str, object] = field(default_factory=dict)
    measured: Sequence[Evaluation] = ()
    course: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Each row has a value for each run, in their order. ``code`` and ``data`` are digests; their files are None where they are not
    known of each run."""

    settings: tuple[Row, ...]
    code: tuple[Row, ...]
    code_files: tuple[FileRow, ...] | None
    data: tuple[Row, ...]
    data_files: tuple[FileRow, ...] | None
    environment: tuple[Row, ...]
    metrics: tuple[Measured, ...]
    course: tuple[Row, ...]


def compare(runs: Sequence[Facts], *, everything: bool = False) -> Comparison:
    """What is not the same for all of these runs; with ``everything`` what is the same too, but for files."""
    chosen = rows if everything else differing
    code_files = _files([run.code for run in runs], [run.code_files for run in runs])
    # A digest is one of names, sizes and times: of two checkouts of the same code it is not the same.
    code = rows([{"code": run.code} if run.code else {} for run in runs])
    return Comparison(
        settings=chosen([settings_of(run.job, run.recipe) for run in runs]),
        code=tuple(row for row in code if everything or (row.differs and code_files != ())),
        code_files=code_files,
        data=chosen([run.data for run in runs]),
        data_files=_files([dict(run.data) for run in runs], [run.data_files for run in runs]),
        environment=chosen([run.environment for run in runs]),
        metrics=measured_rows([run.measured for run in runs], [run.recipe for run in runs], everything=everything),
        course=chosen([run.course for run in runs]),
    )


def _files(digests: Sequence[object], trees: Sequence[Mapping[str, File] | None]) -> tuple[FileRow, ...] | None:
    """What differs among the trees; where all digests are equal nothing does, whether the trees are here or not."""
    if all(each == digests[0] for each in digests):
        return ()
    known = [tree for tree in trees if tree is not None]
    return differing_files(known) if len(known) == len(trees) else None
