"""``gpurun compare``. Boxes are asked about runs that may go on, and about those whose results are not here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.domain.comparison.compare import Comparison, Facts, compare
from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.push import kept_code
from runner.workflow.comparing.code import diff
from runner.workflow.comparing.facts import facts_of, measured_here
from runner.workflow.comparing.record import TrainingRecord
from runner.workflow.observing.history import history_of
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
    facts = [facts_of(row, record, copy, read) for row, record, copy in zip(rows, records, copies, strict=True)]
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
