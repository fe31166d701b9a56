"""Fills the documents about trained models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runner.cli.as_document.runs import run_document

if TYPE_CHECKING:
    from remote_payload.recipes.answers import Answer
    from runner.cli.documents import models as documents
    from runner.domain.run import Run
    from runner.local_model.compare import Comparison
    from runner.local_model.report import SmokeReport
    from runner.workflow.exporting.export import Export
    from runner.workflow.inference.predict import Prediction


def smoke_test_document(run: Run | None, reports: Sequence[SmokeReport]) -> documents.SmokeTest:
    return {
        "run_id": run.run_id if run else None,
        "passed": all(report.passed for report in reports),
        "models": [model_part(report) for report in reports],
    }


def model_part(report: SmokeReport) -> documents.Model:
    return {
        "folder": str(report.folder),
        "kind": report.kind,
        "passed": report.passed,
        "device": report.device,
        "device_name": report.device_name,
        "dtype": report.dtype,
        "torch": report.torch,
        "load_seconds": report.load_seconds,
        "samples": report.samples,
        "samples_per_second": report.samples_per_second,
        "tokens_per_second": report.tokens_per_second,
        "peak_memory": report.peak_memory,
        "counts": report.counts,
        "texts": list(report.texts),
        "labelled": [{"label": each.label, "probability": each.probability} for each in report.labelled],
        "comparison": _comparison(report.comparison) if report.comparison else None,
        "not_opened": list(report.not_opened),
    }


def _comparison(found: Comparison) -> documents.Comparison:
    return {
        "rows": found.rows,
        "difference": found.difference,
        "worst_row": found.worst_row,
        "limit": found.limit,
        "agree": found.agree,
        "answers": found.answers,
        "problems": list(found.problems),
    }


def export_document(run: Run | None, exports: Sequence[Export]) -> documents.Export:
    return {"run_id": run.run_id if run else None, "exports": [_exported(each) for each in exports]}


def _exported(export: Export) -> documents.ExportedForm:
    return {
        "form": export.form,
        "path": str(export.path),
        "weights": export.weights,
        "size": export.size,
        "merged_layers": export.merged_layers,
        "compared_with": "box" if export.by_box else "here",
        "comparison": _comparison(export.comparison),
    }


def predict_document(found: Prediction, *, dry_run: bool) -> documents.Predict:
    result = found.result
    return {
        "target": found.name,
        "kind": found.kind,
        "device": result.device,
        "dtype": found.dtype,
        "output": found.settings.output,
        "dry_run": dry_run,
        "rows": result.rows,
        "bad": result.bad,
        "cut": result.cut,
        "counts": result.counts,
        "predicted": result.predicted,
        "seconds": result.seconds,
        "peak_memory": result.peak_memory,
        "problems": list(result.problems),
    }


def sample_document(run: Run, answers: Iterable[Answer], *, on_box: bool) -> documents.Sample:
    return {**run_document(run), "on_box": on_box, "answers": [_answer(each) for each in answers]}


def _answer(answer: Answer) -> documents.Answer:
    return {
        "prompt": answer.prompt,
        "text": answer.text,
        "tokens": answer.tokens,
        "seconds": answer.seconds,
        "ended": answer.ended,
    }
