"""``gpurun wait``."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.workflow.scripting.wait import Moment


@click.command(
    "wait",
    epilog="\b\nExamples:\n  gpurun wait && gpurun fetch\n  gpurun wait mayors-1 --for checkpoint\n"
    "  gpurun wait --for started --timeout 30m",
)
@options.run_argument
@click.option(
    "--for",
    "moment",
    type=click.Choice(["started", "checkpoint", "end"]),
    default="end",
    show_default=True,
    help="started: its program runs. checkpoint: it has a complete one; of a resumed run, one that comes from now on.",
)
@click.option("--timeout", callback=options.duration, metavar="DURATION", help="Give up after this time (exit 124).")
@options.moved_host_option
@options.json_option
def command(run: str | None, moment: Moment, timeout: float | None, host: str | None, as_json: bool) -> None:
    """Wait until a run starts, has a checkpoint, or ends.

    Prints nothing while it waits, and goes on through sleep and lost networks. Where the run was resumed, it waits for the new run.

    A run that is over ends every wait, with the run's exit code: 0 succeeded, 10 failed, 11 cancelled, 12 lost.
    """
    from runner import store
    from runner.workflow.observing.listing import describe
    from runner.workflow.observing.status import error_of, raise_for
    from runner.workflow.scripting.wait import wait

    report = output.reporter(as_json)
    record = options.run_at(store.find_started(run), host, report)
    record = wait(record, report, moment, math.inf if timeout is None else timeout)
    if as_json:
        from runner.cli.as_document.runs import run_document

        output.print_document(run_document(record))
        error = error_of(record.status) if record.status else None
        sys.exit(error.exit_code if error else 0)
    if record.status:
        raise_for(record.status)
    click.echo(f"{record.run_id}: {describe(record)}")
