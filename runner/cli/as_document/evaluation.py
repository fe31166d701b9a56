"""Fills the document of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote_payload.recipes.evaluated import Column
    from runner.cli.documents import evaluation as documents
    from runner.domain.evaluation.compare import Difference
    from runner.workflow.inference.evaluate import Outcome


def evaluate_document(outcome: Outcome) -> documents.Evaluate:
    found = outcome.results.found
    return {
        "folder": str(outcome.results.folder),
        "data": found.data,
        "sha256": found.sha256,
        "examples": found.examples,
        "columns": [_column(each) for each in found.columns],
        "compared": [
            {"one": each.one, "other": each.other, "differences": [_difference(one) for one in each.differences]}
            for each in outcome.compared
        ],
        "against": outcome.against,
        "worse": [
            {
                "column": each.column,
                "against": each.against,
                "metric": each.metric,
                "value": each.value,
                "other": each.other,
                "tolerance": each.tolerance,
            }
            for each in outcome.worse
        ],
        "passed": not outcome.worse,
    }


def _column(column: Column) -> documents.EvaluatedColumn:
    matrix = column.confusion
    return {
        "name": column.name,
        "model": column.model,
        "base": column.base,
        "asking": column.asking,
        "kind": column.kind,
        "device": column.device,
        "dtype": column.dtype,
        "rows": column.rows,
        "metrics": column.metrics,
        "sets": column.sets,
        "confusion": {"labels": matrix.labels, "counts": matrix.counts} if matrix else None,
    }


def _difference(each: Difference) -> documents.MetricDifference:
    return {
        "metric": each.metric,
        "examples": each.examples,
        "mean": each.mean,
        "low": each.low,
        "high": each.high,
        "better": list(each.better),
        "worse": list(each.worse),
    }
