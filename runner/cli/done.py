"""``gpurun done``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.workflow.done import Verdict

UNSAFE = 6  # the exit code if the box may not be destroyed yet


@click.command(
    "done",
    epilog="\b\nExamples:\n  gpurun done && vastai destroy instance 12345\n"
    "  gpurun done --give-up 7f3a       nobody needs the results of run 7f3a",
)
@options.run_argument
@click.option(
    "--leave-behind",
    is_flag=True,
    help="Accept the loss of what is never fetched: links out of outputs/, devices, odd names.",
)
@click.option(
    "--give-up",
    multiple=True,
    metavar="RUN",
    shell_complete=options.complete_run,
    help="Accept the loss of another run on the box, or of what was pushed for one. May be repeated.",
)
@options.moved_host_option
@options.json_option
def command(run: str | None, leave_behind: bool, give_up: tuple[str, ...], host: str | None, as_json: bool) -> None:
    """Check whether the box of a run may be destroyed.

    Every run on the box has to be over, with its outputs verified on this machine. Then secrets are wiped from the box. Prints
    "safe to destroy", or what is missing (exit 6).

    Runs that other machines submitted count too: their results are not on this machine.
    """
    from runner import store
    from runner.workflow.done import done

    report = output.reporter(as_json)
    record = options.run_at(store.find_started(run), host, report)
    verdict = done(record, report, leave_behind=leave_behind, give_up=give_up)
    if as_json:
        from runner.cli.as_document.files import done_document

        output.print_document(done_document(store.load(record.run_id), verdict))
    else:
        _show(verdict)
    sys.exit(0 if verdict.safe else UNSAFE)


def _show(verdict: Verdict) -> None:
    from runner.domain.quantities import pluralise

    for each in verdict.left_out:
        click.echo(f"left on the box: {each}", err=True)
    if verdict.safe:
        click.echo(
            f"{verdict.host}: {pluralise(len(verdict.fetched), 'run')}, {pluralise(verdict.files, 'file')} home and verified,"
            " logs complete,"
            " no secret left. Safe to destroy."
        )
    else:
        click.echo("NOT safe to destroy:")
        for reason in verdict.reasons:
            output.print_untrusted(f"  {reason}")
