"""The page of several runs: in what they differ and what they measured, means over seeds, and their curves over each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner.domain.answers.results import Evaluation
from runner.domain.comparison.bands import band
from runner.domain.comparison.metrics import Measured, measured_rows
from runner.domain.comparison.recipe import Recipe
from runner.domain.comparison.rows import Row
from runner.domain.comparison.settings import differing_settings
from runner.domain.history import History
from runner.domain.quantities import format_duration, pluralise
from runner.domain.run import Run
from runner.push import kept_code
from runner.report.blocks import Block, Chart, Charts, Note, Page, Section, Series, Table
from runner.workflow.comparing.facts import measured_here, recipe_here
from runner.workflow.comparing.record import TrainingRecord
from runner.workflow.observing.history import history_of
from runner.workflow.observing.listing import cost, describe, elapsed, short_host, step_of
from runner.workflow.reporting.curves import Figure, Line, points_each, series, training_lines
from runner.workflow.reporting.one_run import shown_value
from runner.workflow.reporting.words import figure
from runner.workflow.sweeping.find import experiment_of
from runner.workflow.sweeping.summary import means_of

DRAWN = 60  # runs whose curves are drawn
KEPT = 20_000  # points of a curve that are held while the others are read
STEPS = 300  # of a band
COLUMNS = 14  # of settings, and as many of metrics
LONGEST = 60  # characters of a label


@dataclass(frozen=True)
class Told:
    """One run, and what is here of it: its curves, when they begin, and what it measured."""

    run: Run
    recipe: Recipe
    measured: Sequence[Evaluation]
    start: float
    lines: Sequence[Line]
    label: str = ""

    @property
    def counts(self) -> bool:
        """Whether its last evaluation is one of a model that was finished."""
        return self.run.status is not None and self.run.status.outcome == "succeeded"


def page_of_several(runs: Sequence[Run], notes: Sequence[str] = ()) -> Page:
    """All that is known here of these runs, side by side. ``notes`` are sentences about what is not."""
    read = [_told(run, draws=place < DRAWN) for place, run in enumerate(runs)]
    differing = differing_settings([run.job for run in runs], [each.recipe for each in read])
    told = [replace(each, label=label) for each, label in zip(read, _labels(runs, differing), strict=True)]
    experiments: dict[str, list[Told]] = {}
    for each in told:
        experiments.setdefault(experiment_of(each.run), []).append(each)
    drawn = _charts(list(experiments.values()))
    about = [Note(f"The curves of the first {DRAWN} runs.")] if len(runs) > DRAWN else []
    sections = [
        Section("Outcome", [_outcome(runs), *(Note(each, "warn") for each in notes)]),
        Section("Curves", [*about, Charts(drawn)] if drawn else []),
        Section("Settings that differ, and what was measured", _settings(told, differing)),
        Section("Means over seeds", _means(experiments)),
        Section("Runs", [_table(told)]),
    ]
    return Page(
        _title(runs), f"{pluralise(len(runs), 'run')} of {', '.join(sorted({run.job.name for run in runs}))}", sections
    )


def _title(runs: Sequence[Run]) -> str:
    submissions = {run.submission for run in runs}
    if len(submissions) == 1 and runs[0].submission:
        return f"{runs[0].job.name}: sweep {runs[0].submission}"
    return f"{runs[0].run_id} and {pluralise(len(runs) - 1, 'other')}"


def _outcome(runs: Sequence[Run]) -> Note:
    """How many runs are in which state, and what they have cost together."""
    states = Counter(describe(run).partition(" (")[0].replace("_", " ") for run in runs)
    costs = [spent for run in runs if (spent := cost(run)) is not None]
    text = ", ".join(f"{count} {state}" for state, count in states.most_common())
    all_well = set(states) == {"succeeded"}
    return Note(text + (f"\nTogether they cost {sum(costs):.2f}." if costs else ""), "good" if all_well else "")


def _told(run: Run, *, draws: bool) -> Told:
    history: History = history_of(run)
    measured = measured_here(run, history, TrainingRecord(run.outputs_here))
    lines = [replace(line, curve=line.curve.thinned(KEPT)) for line in training_lines(history)] if draws else []
    recipe = recipe_here(run, kept_code.find(run.code) if run.code else None)
    return Told(run, recipe, measured, history.started or 0.0, lines)


def _labels(runs: Sequence[Run], differing: Sequence[Row]) -> list[str]:
    """What tells a run from the others, such as ``learning_rate 0.0001, seed 3``; its id where that is too long, or not its alone."""
    labels = [_label(differing, place) for place in range(len(runs))]
    return [
        label if 0 < len(label) <= LONGEST and labels.count(label) == 1 else run.run_id
        for label, run in zip(labels, runs, strict=True)
    ]


def _label(differing: Sequence[Row], place: int) -> str:
    return ", ".join(
        f"{row.name.rpartition('.')[2]} {shown_value(row.name, row.values[place])}"
        for row in differing
        if row.values[place] is not None
    )


def _table(told: Sequence[Told]) -> Table:
    rows = [
        [
            each.run.run_id,
            each.label if each.label != each.run.run_id else "",
            describe(each.run).replace("_", " "),
            step_of(each.run).replace("/", " of "),
            format_duration(seconds) if (seconds := elapsed(each.run.status)) is not None else "",
            f"{spent:.2f}" if (spent := cost(each.run)) is not None else "",
            short_host(each.run),
        ]
        for each in told
    ]
    return Table(["run", "in short", "status", "step", "time", "cost", "box"], rows)


def _settings(told: Sequence[Told], differing: Sequence[Row]) -> list[Block]:
    """A row for each run: the settings that are not the same for all, then the metrics that are not, the best of each marked."""
    metrics = measured_rows([each.measured for each in told], [each.recipe for each in told])
    settings, shown = differing[:COLUMNS], metrics[:COLUMNS]
    head = ["run", *(row.name.removeprefix("settings.") for row in settings), *map(_name, shown)]
    rows = [
        [
            each.run.run_id,
            *(shown_value(row.name, row.values[place]) if row.values[place] is not None else "–" for row in settings),
            *(figure(metric.values[place]) for metric in shown),
        ]
        for place, each in enumerate(told)
    ]
    best = {(place, column) for column, metric in enumerate(shown, 1 + len(settings)) for place in metric.best}
    more = len(differing) + len(metrics) - len(settings) - len(shown)
    notes = ["The best of each metric is marked."] if best else []
    notes += [f"{more} more columns: gpurun compare."] if more else []
    return [Table(head, rows, frozenset(best), " ".join(notes))] if settings or shown else []


def _name(metric: Measured) -> str:
    return f"{metric.evaluation}: {metric.metric}"


def _means(experiments: dict[str, list[Told]]) -> list[Block]:
    found = [
        mean
        for name, members in experiments.items()
        if len(members) > 1
        for mean in means_of(name, [each.measured if each.counts else () for each in members])
    ]
    rows = [
        [
            mean.experiment,
            mean.evaluation,
            mean.metric,
            figure(mean.mean) + (f" ± {mean.deviation:.2g}" if mean.deviation is not None else ""),
            f"{mean.count} of {mean.runs}",
        ]
        for mean in found
    ]
    about = "Mean ± standard deviation (n - 1) over the runs that succeeded."
    return [Table(["experiment", "evaluation", "metric", "mean", "runs"], rows, about=about)] if rows else []


def _charts(experiments: Sequence[Sequence[Told]]) -> list[Chart]:
    """A chart for each figure of each evaluation set. An experiment of several runs is their mean with a band of one standard deviation,
    the runs themselves behind it."""
    kinds: dict[tuple[Figure, str], None] = {}
    for members in experiments:
        kinds.update({(line.figure, line.label): None for each in members for line in each.lines})
    points = points_each(len(kinds) * sum(len(members) for members in experiments))
    return [
        Chart(
            _title_of(figure, label),
            figure.unit,
            [
                each
                for colour, members in enumerate(experiments)
                for each in _of_experiment(members, figure, label, points, colour)
            ],
        )
        for figure, label in kinds
    ]


def _title_of(figure: Figure, label: str) -> str:
    return figure.title if label == "training" and figure.title != "loss" else f"{figure.title}: {label}"


def _of_experiment(members: Sequence[Told], figure: Figure, label: str, points: int, colour: int) -> list[Series]:
    """Its lines in one chart; one that is behind the others comes first, since later ones are drawn over it."""
    found = [(each, line) for each in members for line in each.lines if (line.figure, line.label) == (figure, label)]
    common = band([(line.curve, each.start) for each, line in found], STEPS)
    lines = [
        series(line, each.start, points, label=each.label, colour=colour, faint=common is not None)
        for each, line in found
    ]
    if common is None:
        return lines
    means, widths = ([figure.factor * each for each in part] for part in (common.means, common.deviations))
    low = [mean - width for mean, width in zip(means, widths, strict=True)]
    high = [mean + width for mean, width in zip(means, widths, strict=True)]
    name = f"{experiment_of(members[0].run)} (mean of {len(found)})"
    return [*lines, Series(name, common.steps, common.seconds, means, colour, low, high)]
