"""Fills the documents about what is found before a run starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runner.cli.as_document.errors import error_part

if TYPE_CHECKING:
    from runner.cli.documents import checks as documents
    from runner.domain.job import Job
    from runner.jobfile import Problem
    from runner.push.preview import Item, Preview
    from runner.workflow.check import Checked, CheckedHost
    from runner.workflow.submission.forecast import Forecast


def check_document(checked: Checked) -> documents.Check:
    return {
        "job": checked.job,
        "ready": checked.ready,
        "findings": [
            {"what": each.what, "verdict": each.verdict, "said": each.said, "hint": each.hint}
            for each in checked.findings
        ],
        "forecasts": [_forecast(each) for each in checked.forecasts],
        "would_send": {name: _tree(shown) for name, shown in checked.previews.items()},
    }


def check_hosts_document(looked: Sequence[CheckedHost]) -> documents.CheckHosts:
    return {
        "ready": all(each.ready for each in looked),
        "hosts": [
            {
                "host": each.host,
                "check": check_document(each.checked) if each.checked else None,
                "error": error_part(each.error) if each.error else None,
            }
            for each in looked
        ],
    }


def _forecast(forecast: Forecast) -> documents.Forecast:
    host = forecast.host
    return {
        "micro_batch": forecast.shape.micro_batch,
        "error": forecast.error,
        "vram": forecast.memory.total,
        "vram_parts": dict(forecast.memory.by_size()),
        "vram_there": forecast.card.memory_total if forecast.card else None,
        "ram": host.total,
        "ram_parts": {"processes": host.processes, "loading": host.loading, "checkpoint": host.checkpoint},
        "ram_there": forecast.ram,
        "ram_free": forecast.ram_free,
        "runs_at_once": host.runs,
        "disk": forecast.disk.total if forecast.disk else None,
        "disk_free": forecast.disk_free,
    }


def _tree(shown: Preview) -> documents.Tree:
    return {
        "root": shown.root,
        "bytes": shown.bytes,
        "count": shown.count,
        "folders": _sized(shown.folders),
        "files": _sized(shown.files),
        "left_out": [
            {
                "path": left.path,
                "reason": left.reason,
                "bytes": left.bytes,
                "files": left.files,
                "measured": left.measured,
            }
            for left in shown.left_out
        ],
        "left_out_count": shown.left_out_count,
    }


def _sized(items: Iterable[Item]) -> list[documents.Sized]:
    return [{"path": item.path, "bytes": item.bytes, "files": item.files} for item in items]


def job_file_part(path: str, job: Job | None, problems: Iterable[Problem]) -> documents.JobFile:
    """What was found in one job file; ``job`` is the complete job where there is no problem."""
    found = [_problem(problem) for problem in problems]
    good = job if not found else None
    return {
        "path": path,
        "ok": good is not None,
        "problems": found,
        "job": good.wire() if good else None,
        "summary": good.summary if good else None,
        "warnings": list(good.warnings) if good else [],
    }


def _problem(problem: Problem) -> documents.Problem:
    return {
        "path": problem.path,
        "line": problem.place.line,
        "column": problem.place.column,
        "set": problem.place.override or None,
        "message": problem.message,
    }
