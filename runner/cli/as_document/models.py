"""Fills the documents about trained models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote_payload.recipes.answers import Answer, Classified
    from runner.cli.documents import models as documents
    from runner.domain.run import Run
    from runner.local_model.compare import Comparison
    from runner.local_model.report import SmokeReport
    from runner.workflow.exporting.export import Export
    from runner.workflow.inference.predict import Prediction
    from runner.workflow.inference.sample import Chosen, Tried


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


def sample_document(chosen: Chosen, tried: Tried) -> documents.Sample:
    loaded, settings, how = tried.loaded, tried.settings, tried.settings.answering
    answered = list(tried.answered)
    return {
        "target": chosen.name,
        "run_id": chosen.meant.run.run_id if chosen.meant.run else None,
        "on_box": chosen.on_box,
        "kind": loaded.kind,
        "device": loaded.device,
        "step": loaded.step,
        "metrics": loaded.metrics,
        "threshold": loaded.threshold,
        "answering": {
            "max_new_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "repetition_penalty": how.repetition_penalty,
            "system_prompt": how.system_prompt,
            "seed": settings.seed,
        },
        "answers": [_answer(each.prompt, answer) for each in answered for answer in each.answers],
        "classified": [_classified(each.prompt, each.classified) for each in answered if each.classified],
    }


def _answer(prompt: str, answer: Answer) -> documents.Answer:
    return {
        "prompt": prompt,
        "base": answer.base,
        "sample": answer.sample,
        "text": answer.text,
        "tokens": answer.tokens,
        "seconds": answer.seconds,
        "ended": answer.ended,
    }


def _classified(prompt: str, found: Classified) -> documents.Classified:
    return {
        "prompt": prompt,
        "prediction": found.prediction,
        "probability": found.probability,
        "probabilities": found.probabilities,
        "positive": found.positive,
        "positive_probability": found.positive_probability,
        "cut": found.cut,
        "seconds": found.seconds,
    }
