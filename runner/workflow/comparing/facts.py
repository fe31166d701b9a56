"""What this machine knows of the runs that are compared. Boxes are asked about runs that may go on, or whose results are not here."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remote_payload.settings.own import RecipeError, read_declarations
from runner.domain.answers.results import CHOSEN, Evaluation
from runner.domain.comparison.compare import Comparison, Facts, compare
from runner.domain.comparison.recipe import Recipe, recipe_of
from runner.domain.comparison.trees import File
from runner.domain.errors import StateError, UserError
from runner.domain.history import Curve, History
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.host_notes import host_notes
from runner.push import kept_code
from runner.push.selection import Selection
from runner.workflow.checkpoints import listed_in
from runner.workflow.comparing.code import diff, files_of
from runner.workflow.comparing.record import TrainingRecord
from runner.workflow.history import history_of
from runner.workflow.listing import cost, describe, elapsed, step_of
from runner.workflow.sweeping.find import Part, Sweep
from runner.workflow.sweeping.look import Row, known, look


@dataclass(frozen=True)
class Compared:
    """``runs`` in the order in which they were named. ``notes`` are sentences about what is not known, ``unreachable`` why boxes could
    not be asked; ``diff`` the lines of the code's unified diff, None where there are not two copies to compare."""

    runs: tuple[Run, ...]
    found: Comparison
    notes: tuple[str, ...]
    unreachable: tuple[str, ...]
    diff: tuple[str, ...] | None


def compare_runs(runs: Sequence[Run], report: Reporter, *, everything: bool = False) -> Compared:
    """Compares these runs. A box that cannot be asked is no error. Raises UserError for fewer than two runs."""
    if len(runs) < 2:
        raise UserError(
            "there is one run, and nothing to compare it with",
            hint="Name two runs or more, or a sweep of several: gpurun compare A B. gpurun list shows them.",
        )
    rows = _rows(runs, report)
    copies = [kept_code.find(run.code) if run.code else None for run in runs]
    records = [TrainingRecord(run.outputs_here) for run in runs]
    read: dict[tuple[int, int], str] = {}
    facts = [_facts(row, record, copy, read) for row, record, copy in zip(rows, records, copies, strict=True)]
    found = compare(facts, everything=everything)
    notes = _notes(rows, records, facts, found)
    lines = None
    if len(runs) == 2 and found.code_files is not None:
        one, two = copies
        lines = tuple(diff(one.root, two.root, found.code_files)) if one and two else None
    unreachable = dict.fromkeys(row.unreachable for row in rows if row.unreachable)
    return Compared(tuple(row.run for row in rows), found, tuple(notes), tuple(unreachable), lines)


def _rows(runs: Sequence[Run], report: Reporter) -> list[Row]:
    """What the runs have come to, after one request to each box that has to be asked."""
    parts = {run.run_id: Part((run,)) for run in runs}
    rows = {run_id: known(part, {}) for run_id, part in parts.items()}
    to_ask = tuple(parts[run_id] for run_id, row in rows.items() if not row.over and _is_needed(row.run))
    if to_ask:
        rows |= {row.run.run_id: row for row in look(Sweep("", to_ask), report).rows}
    return [rows[run.run_id] for run in runs]


def _is_needed(run: Run) -> bool:
    """Whether its box may tell more than what is here: it is not known to be over, or what it measured is not here."""
    is_over = run.status is not None and run.status.finished
    return not is_over or (not run.done and not measured_here(run, history_of(run), TrainingRecord(run.outputs_here)))


def _facts(row: Row, record: TrainingRecord, copy: Selection | None, read: dict[tuple[int, int], str]) -> Facts:
    run = row.run
    return Facts(
        job=run.job,
        recipe=recipe_here(run, copy),
        code=run.code,
        code_files=_code_files(run, copy, read),
        data=run.data,
        data_files=record.data_files,
        environment={**place_of_run(run), **record.environment},
        measured=row.results.measured
        if row.results and row.results.measured
        else measured_here(run, history_of(run), record),
        course=_course(run, record),
    )


def recipe_here(run: Run, copy: Selection | None) -> Recipe:
    """What is known of the run's recipe; of one of the user's own what its kept file declares."""
    if run.job.has_own_recipe and run.job.recipe and copy is not None:
        with contextlib.suppress(RecipeError):
            return Recipe(*read_declarations(run.job.recipe, str(copy.root)))
    return recipe_of(run.job)


def _code_files(run: Run, copy: Selection | None, read: dict[tuple[int, int], str]) -> Mapping[str, File] | None:
    if not run.job.pushes_code:
        return {}
    try:
        return None if copy is None else files_of(copy, read)
    except OSError:  # it was removed meanwhile
        return None


def place_of_run(run: Run) -> dict[str, object]:
    """Where the run is or was, as this machine noted it."""
    try:
        provider = note.provider if (note := host_notes().get(run.host)) else None
    except StateError:
        provider = None
    found = {"host": run.host, "address": run.addresses or None, "provider": provider, "engine": run.engine}
    return {name: value for name, value in found.items() if value is not None}


def measured_here(run: Run, history: History, record: TrainingRecord) -> tuple[Evaluation, ...]:
    """The last evaluation of each name in what is here: the events, else the fetched record; and that of the chosen model."""
    told = [
        Evaluation(name, max((curve.steps[-1] for curve in curves.values() if curve), default=None), _last(curves))
        for name, curves in history.evaluations.items()
    ]
    if not told and record.last_evaluation is not None:
        told = [record.last_evaluation]
    chosen = chosen_here(run)
    return (*told, chosen) if chosen else tuple(told)


def chosen_here(run: Run) -> Evaluation | None:
    """What was measured of the chosen model, where it is here."""
    best = listed_in(run.outputs_here).get("best")
    return Evaluation(CHOSEN, best.step, best.metrics) if best else None


def _last(curves: Mapping[str, Curve]) -> dict[str, float]:
    return {metric: last for metric, curve in curves.items() if (last := curve.last) is not None}


def _course(run: Run, record: TrainingRecord) -> dict[str, object]:
    """How the run went, as last seen."""
    found: dict[str, object] = {"status": describe(run), "elapsed_seconds": elapsed(run.status), "cost": cost(run)}
    step = (run.status.progress.get("step") if run.status else None) or {}
    found |= {
        "steps": step_of(run) or None,
        "loss": step.get("loss"),
        "tokens_per_second": step.get("tokens_per_second"),
    }
    return {name: value for name, value in {**found, **record.course}.items() if value is not None}


def _notes(
    rows: Sequence[Row], records: Sequence[TrainingRecord], facts: Sequence[Facts], found: Comparison
) -> list[str]:
    """What is not known of the runs, one sentence each."""
    started = [each for each in zip(rows, records, facts, strict=True) if each[0].run.may_be_there]
    silent = [row.run for row, _, each in started if not each.measured]
    unrecorded = [row.run for row, record, _ in started if row.run.job.recipe and not record.found]
    without = [row.run for row, each in zip(rows, facts, strict=True) if each.code_files is None]
    never = {row.run.run_id: row.run for row in rows if not row.run.may_be_there}
    notes = [
        f"{run_id} was never started ({run.why_not_started or 'its submission was cut off'}): only its job is known"
        for run_id, run in never.items()
    ]
    if silent:
        notes.append(f"no evaluation is known of {_named(silent)}")
    if unrecorded:
        notes.append(
            f"packages and machine are not known of {_named(unrecorded)}: training_metadata.json is not here (gpurun fetch)"
        )
    if found.code_files is None and without:
        notes.append(f"the code is not kept here of {_named(without)}: its files are not compared")
    return notes


def _named(runs: Sequence[Run]) -> str:
    """The ids of the first three, and how many others there are."""
    ids = list(dict.fromkeys(run.run_id for run in runs))
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} others" if len(ids) > 3 else "")
