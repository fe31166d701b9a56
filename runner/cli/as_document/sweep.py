"""Fills the document about a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.cli.as_document.runs import run_now_document

if TYPE_CHECKING:
    from runner.cli.documents import sweep as documents
    from runner.domain.answers.results import Evaluation
    from runner.workflow.sweeping.look import Row, View
    from runner.workflow.sweeping.summary import Mean


def sweep_document(view: View, means: Sequence[Mean]) -> documents.Sweep:
    return {"sweep": view.sweep.id, "runs": [_run(row) for row in view.rows], "means": [_mean(each) for each in means]}


def _run(row: Row) -> documents.SweepRun:
    found = row.results
    return {
        **run_now_document(row.seen),
        "settings": row.settings,
        "earlier": [run.run_id for run in row.part.runs if run is not row.run],
        "cost_with_earlier": row.cost,
        "complete": row.over,
        "evaluations": [_evaluation(each) for each in found.evaluations] if found else [],
        "best": _evaluation(found.best) if found and found.best else None,
        "final_bytes": found.final if found else None,
        "checkpoints": found.checkpoints if found else None,
        "checkpoint_bytes": found.bytes if found else None,
    }


def _evaluation(each: Evaluation) -> documents.Evaluation:
    return {"name": each.name, "step": each.step, "metrics": each.metrics}


def _mean(each: Mean) -> documents.Mean:
    return {
        "experiment": each.experiment,
        "evaluation": each.evaluation,
        "metric": each.metric,
        "mean": each.mean,
        "deviation": each.deviation,
        "count": each.count,
        "runs": each.runs,
    }
