"""Fills the documents of a submission: its runs, and with several boxes which of them each went to, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.cli.as_document.checks import check_document
from runner.cli.as_document.errors import error_part
from runner.cli.as_document.runs import run_document

if TYPE_CHECKING:
    from runner.cli.documents import dealing as documents
    from runner.domain.run import Run
    from runner.workflow.check import Checked
    from runner.workflow.dealing.several import Dealing


def submit_document(runs: Sequence[Run], dealing: Dealing | None) -> documents.Submit:
    return {"runs": [run_document(run) for run in runs], "dealt": _dealt(dealing), "left_out": _left_out(dealing)}


def dry_run_document(checked: Sequence[Checked], dealing: Dealing | None) -> documents.DryRun:
    return {
        "ready": all(each.ready for each in checked),
        "jobs": [check_document(each) for each in checked],
        "dealt": _dealt(dealing),
        "left_out": _left_out(dealing),
    }


def _dealt(dealing: Dealing | None) -> list[documents.Dealt]:
    return [
        {"job": each.job.name, "run_id": each.run.run_id if each.run else None, "host": each.host, "why": each.why}
        for each in (dealing.runs if dealing else ())
    ]


def _left_out(dealing: Dealing | None) -> list[documents.LeftOut]:
    errors = dealing.left_out if dealing else {}
    return [{"host": host, "error": error_part(error)} for host, error in errors.items()]
