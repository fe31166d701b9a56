"""What this machine knows of a run: from its record, the results that were noted, its events, the kept code and what was fetched."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from remote_payload.settings.own import RecipeError, read_declarations
from runner.domain.answers.results import CHOSEN, Evaluation
from runner.domain.comparison.compare import Facts
from runner.domain.comparison.recipe import Recipe, recipe_of
from runner.domain.comparison.trees import File
from runner.domain.errors import StateError
from runner.domain.history import Curve, History
from runner.domain.quantities import format_size
from runner.domain.run import Run
from runner.host_notes import host_notes
from runner.push.selection import Selection
from runner.workflow.checkpoints import listed_in
from runner.workflow.comparing.code import files_of
from runner.workflow.comparing.record import TrainingRecord
from runner.workflow.observing.history import history_of
from runner.workflow.observing.listing import cost, describe, elapsed, step_of
from runner.workflow.sweeping.look import Row


def facts_of(row: Row, record: TrainingRecord, copy: Selection | None, read: dict[tuple[int, int], str]) -> Facts:
    """All that is compared of a run. ``read`` remembers the contents of files that several copies of code share."""
    run = row.run
    measured = row.results.measured if row.results else ()
    return Facts(
        job=run.job,
        recipe=recipe_here(run, copy),
        code=run.code,
        code_files=_code_files(run, copy, read),
        data=run.data,
        data_files=record.data_files,
        environment={**place_of_run(run), **_gpus_of_box(run), **record.environment},
        measured=measured or measured_here(run, history_of(run), record),
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


def _gpus_of_box(run: Run) -> dict[str, object]:
    """The GPUs of the run's box by their memory, from the newest sample of its hardware: ``2 × 25.8 GB``. Nothing without GPUs."""
    sample = (run.status.progress.get("hardware") if run.status else None) or {}
    gpus = sample.get("gpus")
    sizes = [gpu.get("memory_total") for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    named = [format_size(size) for size in sizes if isinstance(size, int | float)]
    told = ", ".join(f"{named.count(each)} × {each}" for each in dict.fromkeys(named))
    return {"gpus_of_the_box": told} if told else {}


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
