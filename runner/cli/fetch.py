"""``gpurun fetch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.workflow.fetch import Fetched

SHOWN = 10  # files that are not fetched


@click.command(
    "fetch",
    epilog="\b\nExamples:\n  gpurun fetch            while it trains: the checkpoints that are complete\n  gpurun fetch --into .",
)
@options.run_argument
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder for the outputs; remembered for the next fetch.",
)
@options.moved_host_option
@options.json_option
def command(run: str | None, into: Path | None, host: str | None, as_json: bool) -> None:
    """Copy a run's outputs to this machine, while it trains or after it.

    Each file is verified by its sha256 before it gets its final name.
    """
    from runner import store
    from runner.workflow.fetch import fetch

    report = output.reporter(as_json)
    record = options.run_at(store.find_started(run), host, report)
    fetched = fetch(record, report, into=into)
    if as_json:
        from runner.cli.as_document.files import fetch_document

        return output.print_document(fetch_document(record, fetched))
    show(fetched)


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
    for left in fetched.left_out[:SHOWN]:
        click.echo(f"not fetched: {left}", err=True)
    if len(fetched.left_out) > SHOWN:
        click.echo(f"not fetched: {len(fetched.left_out) - SHOWN} more (--json names them)", err=True)
    if not fetched.complete:
        click.echo("The run is not over: this is what is complete so far.", err=True)
