"""``submit --follow``: what a terminal shows of it, or its one document."""

from __future__ import annotations

import sys

from runner.cli import fetch, output, smoke_test
from runner.cli.logs import how_it_ended
from runner.cli.other_boxes import show_other_logs
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.local_model.report import SmokeReport
from runner.workflow.fetch import Fetched
from runner.workflow.follow_up import first_error, follow_up


def follow_all(runs: list[Run], report: Reporter, as_json: bool) -> None:
    """Follows each run to its end, fetches and tests it. Raises the first run's error after all of them.

    With ``--json`` one document holds all of it, errors too, and the exit code is the first error's.
    """
    followed = follow_up(runs, report, Hidden() if as_json else Terminal(report))
    error = first_error(followed)
    if as_json:
        from runner.cli.as_document.follow import followed_document

        output.print_document({"runs": [followed_document(each) for each in followed]})
        sys.exit(error.exit_code if error else 0)
    if error:
        raise error


class Terminal:
    """Prints the log, the outputs and the smoke tests of one run after another."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._printer = output.LogPrinter()

    def log(self, data: bytes) -> None:
        self._printer(data)

    def log_ended(self, run: Run) -> None:
        self._printer.finish()
        self._printer = output.LogPrinter()
        show_other_logs(run, self._report)
        if run.status is not None and run.status.outcome == "succeeded":
            self._report.note(how_it_ended(run))

    def fetched(self, fetched: Fetched) -> None:
        fetch.show(fetched)

    def tested(self, report: SmokeReport) -> None:
        smoke_test.show(report)


class Hidden:
    """Shows nothing: the document comes at the end."""

    def log(self, data: bytes) -> None:
        pass

    def log_ended(self, run: Run) -> None:
        pass

    def fetched(self, fetched: Fetched) -> None:
        pass

    def tested(self, report: SmokeReport) -> None:
        pass
