"""``gpurun resume``."""

from __future__ import annotations

import sys
from typing import Literal

import click

from runner.cli import options, output


@click.command(
    "resume",
    epilog="\b\nExamples:\n  gpurun resume\n  gpurun resume --checkpoint step-000100 --set settings.epochs=5\n"
    "  gpurun resume --host root@5.6.7.8     on another box, from what is home\n"
    "  gpurun resume --all --host root@1.2.3.4     after a restart of the box",
)
@options.run_argument
@click.option(
    "--checkpoint",
    default="auto",
    show_default=True,
    metavar="NAME",
    shell_complete=options.complete_checkpoint,
    help="The checkpoint to continue from; gpurun checkpoints lists them.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Start again every run that a restart of the box --host interrupted, in the old order.",
)
@click.option("--dry-run", is_flag=True, help="With --all: only say what would be started; start nothing.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field of the job.")
@click.option(
    "--host",
    metavar="HOST",
    shell_complete=options.complete_host,
    help="Where to go on: the run's own box at a new address, or another box, to which what is home of the run is sent.",
)
@click.option(
    "--code",
    type=click.Choice(["run", "here"]),
    help="The code that the run had (by default on another box), or what is in the job's folder now (by default on its own box).",
)
@options.json_option
def command(
    run: str | None,
    checkpoint: str,
    everything: bool,
    dry_run: bool,
    overrides: tuple[str, ...],
    host: str | None,
    code: Literal["run", "here"] | None,
    as_json: bool,
) -> None:
    """Continue from the last good checkpoint, as a new run.

    A program of your own finds copies of the old outputs at their places. The
    variable GPURUN_RESUME is the path of the newest complete checkpoint there,
    or of the one that you name (auto where gpurun recognises none).

    The old run's record, log and outputs stay as they are. Exits with 10 if the new run fails within its first moment.

    After a restart of the box or its container, --all starts its runs again in their old order: those that ran, each from its last
    good checkpoint, then those that waited. Each starts once, however often this is typed. A run whose code, data or environment is
    not there any more stays, and it is said what is missing; then the exit code is 5.
    """
    if everything or dry_run:
        return _all(
            run, host, dry_run and not everything, dry_run, bool(overrides or code or checkpoint != "auto"), as_json
        )
    from runner import store
    from runner.cli.submit import show_started
    from runner.workflow.resume import resume
    from runner.workflow.status import failures_of

    report = output.reporter(as_json)
    new = resume(store.find_started(run), report, checkpoint=checkpoint, overrides=overrides, host=host, code=code)
    if as_json:
        from runner.cli.as_document.runs import run_document

        output.print_document(run_document(new))
        sys.exit(max((error.exit_code for error in failures_of([new])), default=0))
    show_started(new, report)
    for error in failures_of([new]):
        raise error


def _all(run: str | None, host: str | None, alone: bool, dry_run: bool, more: bool, as_json: bool) -> None:
    if alone:
        raise click.UsageError("--dry-run goes with --all")
    if host is None:
        raise click.UsageError("--all needs --host: the box that was restarted")
    if run or more:
        raise click.UsageError("--all takes every run as it was: no RUN, --checkpoint, --set or --code")
    from runner.cli.recovering import start_again

    sys.exit(start_again(host, dry_run, output.reporter(as_json), as_json))
