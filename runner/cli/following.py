"""What ``submit --follow`` does once a run has started: its log to the end, its outputs home, its model tested."""

from __future__ import annotations

import sys
from typing import Any

from runner.cli import options
from runner.cli.fetch import as_document, say
from runner.cli.logs import said_end
from runner.cli.output import LogPrinter
from runner.domain.errors import GpurunError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.workflow.fetch import fetch
from runner.workflow.listing import document as of_record
from runner.workflow.logs import show
from runner.workflow.status import raise_for


def follow_all(runs: list[Run], report: Reporter, as_json: bool) -> None:
    """Each run in turn; one that failed does not keep the others from coming home. Raises the first failure at the end.

    With ``--json`` one document holds all of it, errors too, and the exit code is the first failure's.
    """
    documents: list[dict[str, Any]] = []
    failures: list[GpurunError] = []
    for run in runs:
        document: dict[str, Any] = {}
        documents.append(document)
        try:
            _follow(run, report, as_json, document)
        except GpurunError as error:
            failures.append(error)
            document["error"] = error.as_json()
        documents[-1] = {**of_record(run), **document}
    if as_json:
        options.print_json({"runs": documents})
        sys.exit(failures[0].exit_code if failures else 0)
    if failures:
        raise failures[0]


def _follow(run: Run, report: Reporter, as_json: bool, document: dict[str, Any]) -> None:
    printer = LogPrinter(silent=as_json)
    status = show(run, report, printer, until_end=True, tail=None)
    printer.finish()
    if status is not None and status.outcome == "succeeded":
        report.note(said_end(run))
    fetched = fetch(run, report)
    document["fetched"] = as_document(run, fetched)
    if not as_json:
        say(fetched)
    if status is not None:
        raise_for(status)
    if run.job.recipe and run.job.smoke_test.enabled:
        document["smoke_test"] = _smoke_test(run, report, as_json)


def _smoke_test(run: Run, report: Reporter, as_json: bool) -> list[dict[str, Any]]:
    from runner.cli.smoke_test import say as say_model
    from runner.workflow.smoke import raise_for as raise_for_models
    from runner.workflow.smoke import smoke_test, target_of

    folder, _ = target_of(run.run_id)
    reports = smoke_test(folder, report, run=run, device="auto")
    for model in reports if not as_json else ():
        say_model(model)
    raise_for_models(reports)
    return [model.as_json() for model in reports]
