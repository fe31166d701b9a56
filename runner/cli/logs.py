"""``gpurun logs``."""

from __future__ import annotations

import click

from runner.cli import options


@click.command(
    "logs",
    epilog="\b\nExamples:\n  gpurun logs                the whole log; what is here already is not sent again\n"
    "  gpurun logs -f             follow to the end; exits with the run's code (10 failed, 11 cancelled, 12 lost)\n"
    "  gpurun logs --tail 50\n  gpurun logs --raw > run.log",
)
@options.run_argument
@click.option(
    "-f", "--follow", "until_end", is_flag=True, help="Go on until the run ends, through sleep and lost networks."
)
@click.option("--tail", type=options.Count("lines"), metavar="N", help="Begin with the last N lines.")
@click.option("--raw", is_flag=True, help="Every byte as it is, control sequences too: for files and pipes.")
@options.json_option
def command(run: str | None, until_end: bool, tail: int | None, raw: bool, as_json: bool) -> None:
    """The log, from the byte where this machine left off."""
    from runner import store
    from runner.cli.output import LogPrinter
    from runner.domain import places
    from runner.workflow.logs import show
    from runner.workflow.status import raise_for

    record = store.find_started(run)
    printer = LogPrinter(raw=raw, silent=as_json)
    status = show(record, options.reporter(as_json), printer, until_end=until_end, tail=tail)
    printer.finish()
    if as_json:
        log = places.run_folder(record.run_id) / "log"
        options.print_json({"run_id": record.run_id, "log": str(log), "status": record.status})
    if until_end and status is not None:
        raise_for(status)
