"""``gpurun list``."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.cli.table import print_rows

if TYPE_CHECKING:
    from runner.domain.run import Run

LATEST = 30
SHRINK = {"host": 8, "status": 12}
DROP = ("cost", "step", "as of", "sweep")


@click.command(
    "list",
    epilog="\b\nExamples:\n  gpurun list\n  gpurun list --refresh\n  gpurun list --all --json\n  gpurun list --host root@1.2.3.4",
)
@options.host_option(required=False)
@click.option("--refresh", is_flag=True, help="Ask the boxes first about the runs that may go on.")
@click.option("--all", "everything", is_flag=True, help=f"List all runs, not only the latest {LATEST}.")
@options.json_option
def command(host: str | None, refresh: bool, everything: bool, as_json: bool) -> None:
    """List the runs of this machine as they were last seen, or with --refresh as they are.

    A run that resumes another stands below it, with └ before its name.

    With --host, list all runs on that box as they are now.
    """
    if host is not None:
        return _on_host(host, as_json)  # which asks the box by itself
    from runner import store

    runs, damaged = store.load_all(limit=None if everything else LATEST)
    unreachable = _refresh(runs, as_json) if refresh else []
    more = 0 if everything else max(0, len(store.run_ids()) - LATEST)
    if as_json:
        from runner.cli.as_document.runs import run_document

        errors = [error.message for error in damaged]
        return output.print_document(
            {"runs": [run_document(run) for run in runs], "damaged": errors, "more": more, "unreachable": unreachable}
        )
    from runner.workflow.observing.listing import as_stories, recovery_advice, sweeps_of

    sweeps = sweeps_of(runs)
    rows = [_row(run, goes_on, sweeps) for run, goes_on in as_stories(runs)]
    columns = ("run", "sweep", "host", "status", "as of", "step", "cost")
    print_rows(columns, rows, "no run yet; start one: gpurun submit JOB --host HOST", shrink=SHRINK, drop=DROP)
    if more:
        click.echo(f"{more} more: gpurun list --all", err=True)
    for reason in unreachable:
        output.print_untrusted(f"warning: {reason}; its runs are shown as they were last seen", err=True)
    for line in recovery_advice(runs):
        click.echo(line, err=True)
    for error in damaged:
        click.echo(f"warning: {error.message}", err=True)


def _refresh(runs: Sequence[Run], as_json: bool) -> list[str]:
    from runner.workflow.observing.status import refresh_all

    return refresh_all(runs, output.reporter(as_json))


def _row(run: Run, goes_on: bool, sweeps: Collection[str]) -> list[str]:
    from runner.workflow.observing.listing import age_of, cost, describe, short_host, step_of

    name = f"└ {run.run_id}" if goes_on else run.run_id
    sweep = run.submission if run.submission in sweeps else None
    return [name, sweep or "", short_host(run), describe(run), age_of(run), step_of(run), _money(cost(run))]


def _money(price: float | None) -> str:
    return f"{price:.2f}" if price is not None else ""


def _on_host(host: str, as_json: bool) -> None:
    from runner.domain.terminal import clean
    from runner.workflow.observing.listing import cost, in_words, recovery_advice, set_aside_lines
    from runner.workflow.observing.status import on_host

    found = on_host(host, output.reporter(as_json))
    if as_json:
        from runner.cli.as_document.runs import list_of_host_document

        return output.print_document(list_of_host_document(host, found))
    rows = [
        [
            status.run_id,
            in_words(status),
            _when(status.started_at),
            _money(cost(replace(run, status=status))) if run else "",
            "" if run else "another machine's",
        ]
        for status, run in found.runs
    ]
    columns, drop = ("run", "status", "started", "cost", "note"), ("started", "cost")
    print_rows(columns, rows, f"no run on {host}", shrink={"status": 12}, drop=drop)
    for line in set_aside_lines(host, found.set_aside):
        click.echo(clean(line, 500), err=True)
    for line in recovery_advice(replace(run, status=status, host=host) for status, run in found.runs if run):
        click.echo(line, err=True)


def _when(started_at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(started_at)) if started_at else ""
