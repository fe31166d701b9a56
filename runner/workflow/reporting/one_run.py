"""The page of one run: its sections, from the record, the history and what was fetched. Nobody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.comparison.recipe import Recipe
from runner.domain.comparison.settings import Changed, changed_settings
from runner.domain.history import History
from runner.domain.job import SECRET_NAME, Job
from runner.domain.quantities import format_duration
from runner.domain.run import Run
from runner.domain.terminal import without_controls
from runner.push import kept_code
from runner.report.blocks import Block, Charts, Facts, Moment, Note, Page, Section, Table, Text, Tone
from runner.workflow.comparing.facts import chosen_here, recipe_here
from runner.workflow.inference.smoke_note import noted
from runner.workflow.observing.history import story_of
from runner.workflow.observing.listing import age_of, cost, describe, step_of
from runner.workflow.observing.status import Seen
from runner.workflow.reporting import curves, measured, outputs
from runner.workflow.reporting.words import in_words, moment

LOG_BYTES = 1 << 16
LOG_LINES = 60
EVENTS = 120  # rows of the table; the charts have more
TONES: dict[str, Tone] = {"succeeded": "good", "failed": "bad", "timed_out": "bad", "lost": "bad", "interrupted": "bad"}


def page_of(run: Run, history: History, notes: Sequence[str] = ()) -> Page:
    """All that is known here of the run. ``notes`` are sentences about what is not."""
    record, recipe = outputs.record_of(run), recipe_here(run, kept_code.find(run.code) if run.code else None)
    training, hardware = list(curves.training_lines(history)), list(curves.hardware_lines(history))
    points = curves.points_each(len(training) + len(hardware))
    start = history.started or 0.0
    moments = curves.moments(history)
    smoke: list[Block] = [
        Note(f"{each.model}: {'passed' if each.passed else 'failed'}\n{each.about}", "good" if each.passed else "bad")
        for each in noted(run)
    ]
    sections = [
        Section("Outcome", [*_outcome(run), *(Note(each, "warn") for each in notes)]),
        Section("Training", _charts(training, start, points) or _nothing(run)),
        Section(
            "Evaluations",
            [*measured.evaluation_tables(history, recipe, chosen_here(run)), *outputs.beside_base(run)],
        ),
        Section("What happened", _events(moments, start)),
        Section("Hardware", [Facts(_hardware(run.status)), *_charts(hardware, start, points)] if hardware else []),
        Section("Data", outputs.data_blocks(run, record)),
        Section("Settings that differ from the defaults", _settings(run.job, recipe)),
        Section("Smoke test on this machine", smoke),
        Section("Samples", outputs.samples(run)),
        Section("Environment", [outputs.environment(run, record)], folded=True),
        Section("The same again", [Text(run.how_to_repeat)] if run.parent or run.job.file else []),
        Section("The end of the log", _log(run)),
    ]
    return Page(run.run_id, run.job.summary, sections, moments)


def _outcome(run: Run) -> list[Block]:
    status, seen = run.status, Seen(run, run.status, run.status_at)
    outcome = (status.outcome or "") if status else ""
    said = [describe(run).replace("_", " "), (status.evidence or "") if status else run.why_not_started]
    advice = (status.advice or "") if status else run.not_started.hint if run.not_started else ""
    said.append(f"What to change: {advice}" if advice else "")
    tone = TONES.get(outcome, "" if run.launched else "warn")
    return [Note("\n".join(each for each in said if each), tone), Facts([*_course(run, seen), *_relatives(run)])]


def _course(run: Run, seen: Seen) -> list[tuple[str, str]]:
    """Where and when it ran, how far it came and what it cost."""
    status = run.status
    spent = cost(run)
    finished = status is not None and status.finished
    step = step_of(run)
    return [
        ("box", f"{run.host}  {run.addresses}".strip()),
        ("submitted", moment(run.created_at)),
        ("started", moment(status.started_at) if status else ""),
        ("ended", moment(status.ended_at) if status else ""),
        ("time", format_duration(seen.elapsed) if seen.elapsed is not None else ""),
        ("step", step.replace("/", " of ")),
        ("still to go", format_duration(seen.eta) if seen.eta is not None else ""),
        ("as of", moment(run.status_at) if age_of(run) else ""),
        (
            "cost",
            f"{spent:.2f}{'' if finished else ' so far'} ({run.job.price_per_hour:g} an hour)"
            if spent is not None
            else "",
        ),
        ("outputs", _fetched(run)),
    ]


def _fetched(run: Run) -> str:
    if not run.fetched_into:
        return "not fetched"
    folder = Path(run.fetched_into)
    shown = Path("~") / folder.relative_to(Path.home()) if folder.is_relative_to(Path.home()) else folder
    return f"{shown}" + ("" if run.fetched_at else " (not all of them)")


def _relatives(run: Run) -> list[tuple[str, str]]:
    before = [each.run_id for each in story_of(run)[:-1]] or [run.parent or ""]
    return [
        ("goes on from", ", ".join(before)),
        ("went on as", run.went_on_as or ""),
        ("experiment", run.experiment or ""),
    ]


def _hardware(status: Status | None) -> list[tuple[str, str]]:
    return [("GPUs of the run", ", ".join(map(str, status.gpus)))] if status else []


def _charts(lines: Sequence[curves.Line], start: float, points: int) -> list[Block]:
    return [Charts(curves.as_charts(lines, start, points))] if lines else []


def _nothing(run: Run) -> list[Block]:
    return [Note("No event of a training step is here.")] if run.launched else []


def _events(moments: Sequence[Moment], start: float) -> list[Block]:
    rows = [
        [moment(start + each.seconds), format_duration(each.seconds), f"{each.step:,}", each.kind, each.text]
        for each in moments[-EVENTS:]
    ]
    about = f"The newest {EVENTS}." if len(moments) > EVENTS else ""
    return [Table(["at", "after", "step", "what", ""], rows, about=about)] if rows else []


def _settings(job: Job, recipe: Recipe) -> list[Block]:
    changed = changed_settings(job, recipe)
    rows = [[each.name, value_of(each), in_words(each.default)] for each in changed]
    return [Table(["setting", "here", "default"], rows)] if rows else []


def value_of(field: Changed) -> str:
    """The value; not of a variable whose name says that it is a secret."""
    return shown_value(field.name, field.value)


def shown_value(name: str, value: object) -> str:
    """The value of a job's field; hidden where it is a variable whose name says that it is a secret."""
    hidden = name.startswith("environment.variables.") and SECRET_NAME.search(name.rpartition(".")[2])
    return "(hidden)" if hidden else in_words(value)


def _log(run: Run) -> list[Block]:
    """The newest lines; of a progress bar that was drawn again and again, its last state."""
    try:
        with (places.run_folder(run.run_id) / "log").open("rb") as log:
            start = max(0, log.seek(0, 2) - LOG_BYTES)
            log.seek(start)
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    shown = without_controls("\n".join(lines[-LOG_LINES - 1 :])).strip("\n")
    return [Text(shown)] if shown else []
