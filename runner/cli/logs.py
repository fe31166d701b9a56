"""``gpurun logs``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.domain.run import Run


@click.command(
    "logs",
    epilog="\b\nExamples:\n  gpurun logs                  the whole log, as it is now\n"
    "  gpurun logs -f               follow to the end\n"
    "  gpurun logs --tail 50\n  gpurun logs --timestamps        when each line was there\n  gpurun logs --raw > run.log",
)
@options.run_argument
@click.option(
    "-f", "--follow", "until_end", is_flag=True, help="Follow until the run ends, through sleep and lost networks."
)
@click.option("--tail", type=options.Count("lines"), metavar="N", help="Begin with the last N lines.")
@click.option("--raw", is_flag=True, help="Print every byte as it is, control sequences too, for files and pipes.")
@click.option("--timestamps", is_flag=True, help="Put the time in front of each line, to the second.")
@options.moved_host_option
@options.json_option
def command(
    run: str | None, until_end: bool, tail: int | None, raw: bool, timestamps: bool, host: str | None, as_json: bool
) -> None:
    """Print the log of a run, or follow it to the end.

    Bytes that are on this machine already are not sent again. With -f, a terminal that showed a part of the log before
    continues from there, and the exit code is the run's: 10 failed, 11 cancelled, 12 lost. Where the run was resumed, on its
    box or on another one, the log of the new run follows.

    The times of --timestamps are beside the log, not in it: the box notes once a second how far the log has grown. A line whose time
    nobody noted has blanks there.
    """
    if timestamps and (raw or as_json):
        raise click.UsageError("--timestamps adds to the log's lines, --raw and --json do not: give one of them.")
    from runner import store
    from runner.cli.output import LogPrinter, Shown
    from runner.domain import places
    from runner.workflow.observing.logs import show, show_timed, went_on
    from runner.workflow.observing.status import error_of, raise_for

    report = output.reporter(as_json)
    record = options.run_at(store.find_started(run), host, report)
    if record.parent:
        report.note(f"{record.run_id} goes on from {record.parent}: gpurun logs {record.parent} shows what was before")
    following: Run | None = record
    while following is not None:
        record = following
        printer = LogPrinter(raw=raw, silent=as_json)
        log = places.run_folder(record.run_id) / "log"
        if timestamps:
            status = show_timed(record, report, printer.line, until_end=until_end, tail=tail)
        else:
            with Shown(log, until_end and tail is None and not raw and not as_json) as shown:
                status = show(record, report, printer, until_end=until_end, tail=tail, shown=shown)
        printer.finish()
        following = went_on(record)
        if following is not None:
            report.note(f"{record.run_id} went on as {following.run_id} on {following.host}")
        if not until_end:
            break
    if not as_json:
        from runner.cli.other_boxes import show_other_logs

        show_other_logs(record, report)
    if as_json:
        from runner.cli.as_document.runs import run_document

        output.print_document({**run_document(record), "log": str(log)})
        error = error_of(status) if until_end and status is not None else None
        sys.exit(error.exit_code if error else 0)
    if until_end and status is not None:
        raise_for(status)
        report.note(f"{how_it_ended(record)}. next: gpurun fetch {record.run_id}")


def how_it_ended(run: Run) -> str:
    """How a run ended, how long it took and what it cost."""
    from runner.domain.quantities import format_duration
    from runner.workflow.observing.listing import cost, describe, elapsed

    price = cost(run)
    paid = f", {price:.2f}" if price is not None else ""
    return f"{run.run_id}: {describe(run)} after {format_duration(elapsed(run.status))}{paid}"
