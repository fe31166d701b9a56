"""``gpurun fetch``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.domain.progress import Reporter
    from runner.domain.run import Run
    from runner.workflow.fetch import Fetched

SHOWN = 10  # files that are not fetched


@click.command(
    "fetch",
    epilog="\b\nExamples:\n  gpurun fetch            while it trains: the checkpoints that are complete\n  gpurun fetch --into .\n"
    "  gpurun fetch mayors --best     the chosen model of each run of a sweep",
)
@options.run_or_sweep_argument
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder for the outputs; remembered for the next fetch.",
)
@click.option("--best", is_flag=True, help="Of a recipe's run the chosen model, reports and logs: no checkpoints.")
@options.moved_host_option
@options.json_option
def command(run: str | None, into: Path | None, best: bool, host: str | None, as_json: bool) -> None:
    """Copy a run's outputs to this machine, while it trains or after it.

    Each file is verified by its sha256 before it gets its final name. RUN may be a sweep, by its id or its name: all its runs that
    were started.
    """
    from runner.workflow.fetch import fetch
    from runner.workflow.sweeping.find import find_started_runs

    report = output.reporter(as_json)
    chosen = find_started_runs([run] if run else [])
    if chosen.several:
        if into or host:
            raise click.UsageError("--into and --host go with one run, and this is a sweep")
        return _fetch_sweep(chosen.runs, best, report, as_json)
    record = options.run_at(chosen.runs[0], host, report)
    fetched = fetch(record, report, into=into, best=best)
    if as_json:
        from runner.cli.as_document.files import fetch_document

        return output.print_document(fetch_document(record, fetched))
    show(fetched)


def _fetch_sweep(runs: list[Run], best: bool, report: Reporter, as_json: bool) -> None:
    """Brings the runs home and says what came; then raises the first run's error, or exits with its code."""
    from runner.workflow.fetching.several import fetch_each
    from runner.workflow.follow_up import first_error

    found = fetch_each(runs, report, best=best)
    error = first_error(found)
    if as_json:
        from runner.cli.as_document.follow import followed_document

        output.print_document({"runs": [followed_document(each) for each in found]})
        sys.exit(error.exit_code if error else 0)
    for each in found:
        if each.fetched:
            show(each.fetched)
        elif each.error is not error:
            output.print_untrusted(f"not fetched: {each.run.run_id}: {each.error}")
    if error:
        raise error


def show(fetched: Fetched) -> None:
    """Prints what a fetch brought, for a person."""
    from runner.domain.quantities import format_size, pluralise

    here = f", {fetched.kept} here already" if fetched.kept else ""
    if fetched.new or fetched.kept:
        click.echo(
            f"{pluralise(len(fetched.new), 'file')} ({format_size(fetched.bytes)}){here}, all verified: {fetched.into}"
        )
    else:
        click.echo("The run left nothing to fetch.")
    if fetched.page:
        click.echo(f"report: {fetched.page}")
    for left in fetched.left_out[:SHOWN]:
        click.echo(f"not fetched: {left}", err=True)
    if len(fetched.left_out) > SHOWN:
        click.echo(f"not fetched: {len(fetched.left_out) - SHOWN} more (--json names them)", err=True)
    if not fetched.complete:
        click.echo("The run is not over: this is what is complete so far.", err=True)
