"""``gpurun evaluate``: models measured on the same data, side by side; here, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from remote_payload.recipes.evaluated import SUMMARY, Column, Evaluation
from remote_payload.settings.evaluate import EvaluateSettings
from runner import files
from runner.domain.answers.reading import Impossible
from runner.domain.errors import ArtifactError, UserError
from runner.domain.evaluation.compare import Difference, compare
from runner.domain.evaluation.read import Example, read_evaluation, read_examples
from runner.domain.evaluation.regression import (
    Tolerance,
    Worse,
    counterpart,
    uncompared,
    unknown_metrics,
    worse_metrics,
)
from runner.domain.evaluation.tables import as_markdown
from runner.domain.progress import Reporter
from runner.local_model.base import choose_dtype
from runner.local_model.messages import Evaluated, EvaluateRequest
from runner.local_model.process import model_process, show
from runner.workflow.inference.evaluation_settings import evaluation_settings
from runner.workflow.inference.targets import Ready, find_target, make_ready

REPORT = "evaluation.md"
ELSEWHERE = "Evaluate it where there is more memory: gpurun evaluate … --host HOST"


@dataclass(frozen=True)
class Results:
    """An evaluation whose files are in ``folder``."""

    folder: Path
    found: Evaluation

    def examples(self, column: Column) -> list[Example]:
        """Every example of a column. Raises ArtifactError for a file that is missing or damaged."""
        file = self.folder / column.rows
        try:
            return read_examples(file.read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{file} cannot be read: {error}", hint="Evaluate again.") from None


@dataclass(frozen=True)
class Compared:
    """One column beside another, example by example."""

    one: str
    other: str
    differences: list[Difference]


@dataclass(frozen=True)
class Outcome:
    """The results, what was compared, and what is ``worse`` than allowed; ``against`` is None where nothing was to be held against."""

    results: Results
    compared: list[Compared]
    against: str | None
    worse: list[Worse]


@dataclass(frozen=True)
class Asked:
    """What the command line says. ``against`` is a TARGET, which is then measured too, or the results of an earlier evaluation."""

    targets: tuple[str, ...]
    data: Path
    output: Path | None = None
    against: str | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    overrides: tuple[str, ...] = ()
    grid: tuple[str, ...] = ()
    samples: int | None = None
    device: str | None = None
    base: bool | None = None


def evaluate(asked: Asked, report: Reporter) -> Outcome:
    """Measures the targets on this machine, writes the report and compares. Raises UserError, ArtifactError and HubAccessDenied."""
    earlier, named, folder = begin(asked)
    ready = [make_ready(find_target(each, report), report, wants_base=asked.base is not False) for each in named]
    settings = settings_of(asked, ready, report)
    folder.mkdir(parents=True, exist_ok=True)
    request = EvaluateRequest(asdict(settings), folder.absolute())
    with (
        report.stage(f"evaluate {', '.join(named)}") as stage,
        model_process(request, ArtifactError, meaning="Nothing was written that is complete.") as process,
    ):
        process.receive(Evaluated, show(stage))
    return finish(read_results(folder), asked, earlier)


def begin(asked: Asked) -> tuple[Results | None, list[str], Path]:
    """The results to hold against where ``--against`` names some, all targets, and the folder to write to. Raises UserError."""
    if not asked.data.exists():
        raise UserError(f"there is no file {asked.data}")
    earlier = earlier_results(asked.against) if asked.against else None
    also = [asked.against] if asked.against and not earlier else []
    folder = asked.output or default_output(asked.data)
    if (folder / SUMMARY).exists():
        raise UserError(f"{folder} has an evaluation already", hint="Give another --output, or move it away.")
    return earlier, list(dict.fromkeys((*asked.targets, *also))), folder


def settings_of(asked: Asked, ready: Sequence[Ready], report: Reporter) -> EvaluateSettings:
    """The recipe's settings for models that are here. The job of the first run among them says how its data is read."""
    run = next((each.target.run for each in ready if each.target.run), None)
    dtypes = {choose_dtype(each.model, each.base, report, elsewhere=ELSEWHERE) for each in ready}
    narrow = sorted(dtypes - {"float32"})
    models = [
        {
            "name": each.target.named,
            "folder": str(each.target.folder.absolute()),
            "base": str(each.base) if each.base else None,
        }
        for each in ready
    ]
    return evaluation_settings(
        models, asked.data, run,
        overrides=asked.overrides, grid=asked.grid, samples=asked.samples, device=asked.device, base=asked.base,
        dtype=narrow[0] if narrow else None,
    )  # fmt: skip


def finish(results: Results, asked: Asked, earlier: Results | None) -> Outcome:
    """Compares what was measured, and writes the report beside it. Raises UserError for a tolerance of a metric that there is not."""
    columns = results.found.columns
    if strange := unknown_metrics(asked.tolerance, columns):
        raise UserError(
            f"--tolerance: there is no metric {strange[0]} that is better or worse",
            meaning=f"The evaluation is in {results.folder}.",
            hint="Its table has the names.",
        )
    pairs = [(column, results, other) for column, other in _beside(columns)]
    worse: list[Worse] = []
    if asked.against:
        held = earlier or results
        mine, others = _sides(columns, held.found.columns, asked.against, earlier is not None)
        if earlier and earlier.found.sha256 != results.found.sha256:
            raise UserError(
                f"{earlier.folder} was measured on other data ({earlier.found.data}), so nothing can be compared",
                meaning=f"The evaluation is in {results.folder}.",
            )
        left = uncompared(mine, others, asked.tolerance)
        if left or not mine:  # a regression test that compares nothing must not pass
            raise UserError(
                f"{', '.join(left) or asked.against} cannot be held against {asked.against}: they have no metric in common",
                meaning=f"The evaluation is in {results.folder}.",
                hint="Metrics need right answers in the data; columns of a grid are held against those asked in the same way.",
            )
        worse = worse_metrics(mine, others, asked.tolerance)
        matched = ((column, counterpart(column, others)) for column in mine if not column.base)
        pairs += [(column, held, other) for column, other in matched if other is not None]
    compared = [
        Compared(column.name, other.name, compare(results.examples(column), held.examples(other)))
        for column, held, other in pairs
    ]
    examples = {column.name: results.examples(column) for column in columns}
    markdown = as_markdown(results.found, examples, [(each.one, each.other, each.differences) for each in compared])
    files.write_text(results.folder / REPORT, markdown)
    return Outcome(results, compared, asked.against, worse)


def _beside(columns: Sequence[Column]) -> Iterator[tuple[Column, Column]]:
    """Each model with its base, asked in the same way."""
    for base in columns:
        if base.base:
            yield from (
                (each, base)
                for each in columns
                if not each.base and each.model == base.model and each.asking == base.asking
            )


def _sides(
    columns: Sequence[Column], earlier: Sequence[Column], against: str, is_earlier: bool
) -> tuple[list[Column], list[Column]]:
    """The columns that are judged, and those that they are held against."""
    if is_earlier:
        return [each for each in columns if not each.base], list(earlier)
    mine = [each for each in columns if each.model != against and not each.base]
    return mine, [each for each in columns if each.model == against and not each.base]


def earlier_results(named: str) -> Results | None:
    """The results that ``named`` is the folder or the summary of; None for anything else, which is a TARGET."""
    path = Path(named).expanduser()
    if path.is_file():
        return read_results(path.parent)
    return read_results(path) if (path / SUMMARY).is_file() else None


def read_results(folder: Path) -> Results:
    """The results in a folder. Raises ArtifactError where they are missing or damaged."""
    try:
        return Results(folder, read_evaluation(files.parse_json(folder / SUMMARY)))
    except (Impossible, OSError) as error:
        raise ArtifactError(f"{folder / SUMMARY} is no evaluation that can be read: {error}") from None


def default_output(data: Path) -> Path:
    """``evaluations/DATA-TIME`` in this folder."""
    return Path("evaluations") / f"{data.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
