"""Fills the document of ``gpurun compare``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.cli.as_document.runs import run_document

if TYPE_CHECKING:
    from runner.cli.documents import comparison as documents
    from runner.domain.comparison.metrics import Measured
    from runner.domain.comparison.rows import Row
    from runner.domain.comparison.trees import File, FileRow
    from runner.workflow.comparing.compare import Compared


def compare_document(compared: Compared, diff: Sequence[str] | None) -> documents.Compare:
    found = compared.found
    return {
        "runs": [run_document(run) for run in compared.runs],
        "settings": [_row(row) for row in found.settings],
        "code": [_row(row) for row in found.code],
        "code_files": _files(found.code_files),
        "diff": None if diff is None else list(diff),
        "data": [_row(row) for row in found.data],
        "data_files": _files(found.data_files),
        "environment": [_row(row) for row in found.environment],
        "metrics": [_metric(row) for row in found.metrics],
        "course": [_row(row) for row in found.course],
        "notes": list(compared.notes),
        "unreachable": list(compared.unreachable),
    }


def _row(row: Row) -> documents.ComparedRow:
    return {"name": row.name, "values": list(row.values)}


def _files(rows: Sequence[FileRow] | None) -> list[documents.ComparedFiles] | None:
    return None if rows is None else [{"path": row.path, "files": [_file(file) for file in row.files]} for row in rows]


def _file(file: File | None) -> documents.ComparedFile | None:
    return None if file is None else {"size": file.size, "content": file.content, "mode": file.mode}


def _metric(row: Measured) -> documents.ComparedMetric:
    return {
        "evaluation": row.evaluation,
        "metric": row.metric,
        "values": list(row.values),
        "more_is_better": row.is_more_better,
        "best": sorted(row.best),
    }
