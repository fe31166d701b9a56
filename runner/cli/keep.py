"""``gpurun keep``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.domain.run import Run


@click.command(
    "keep",
    epilog="""\b
Examples:
  gpurun keep              the newest run, and those submitted with it
  gpurun keep --checkpoints latest:1,best
  gpurun keep --on-end ./tell_me.sh RUN RUN

\b
--on-end is told by variables: GPURUN_ENDED_RUN, GPURUN_ENDED_OUTCOME
(succeeded, failed, cancelled, timed_out, interrupted, lost, unknown) and
GPURUN_ENDED_PLACE, the folder on this machine.""",
)
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=options.complete_run_or_sweep)
@click.option(
    "--checkpoints",
    "written_rule",
    default="all",
    show_default=True,
    metavar="RULE",
    help="The checkpoints that stay on this machine: all, latest:N with how many of the newest, or latest:N,best.",
)
@click.option(
    "--recover",
    "recovers",
    is_flag=True,
    help="After a restart of the box, start again what it interrupted: gpurun resume --all.",
)
@click.option("--on-end", metavar="COMMAND", help="A program to call when a run is over. No shell reads its words.")
@options.json_option
def command(runs: tuple[str, ...], written_rule: str, recovers: bool, on_end: str | None, as_json: bool) -> None:
    """Bring home what runs produce, as they produce it, until they are over.

    Each complete checkpoint, log and report comes as it appears, verified by its sha256. A lost connection is opened again
    for as long as it takes, also at the address that gpurun hosts move has noted. Ended and started again, it goes on. RUN may be a
    sweep, by its id or its name: those of its runs that are not home yet.

    Exits with 0 once every run succeeded and is home, else with the code of the first that did not: 10 failed, 11 cancelled, 12 lost.
    """
    from runner import store
    from runner.workflow.keep import together_with
    from runner.workflow.sweeping.find import find_started_runs

    if not runs:
        return keep_all(together_with(store.find_started(None)), written_rule, on_end, as_json, recovers)
    found = find_started_runs(runs, of_sweep=lambda run: run.fetched_at is None).runs
    keep_all(found, written_rule, on_end, as_json, recovers)


def keep_all(runs: Sequence[Run], written_rule: str, on_end: str | None, as_json: bool, recovers: bool = False) -> None:
    """Keeps these runs to their ends, then prints where they are. Raises the first run's error; with ``--json`` exits with its code."""
    from runner.cli.keep_display import display
    from runner.workflow.keep import first_error, keep
    from runner.workflow.keeping.outcome import parse_command
    from runner.workflow.keeping.rule import parse_rule

    rule, words = parse_rule(written_rule), parse_command(on_end)
    with display(as_json) as shown:
        kept = keep(runs, shown, rule=rule, on_end=words, recovers=recovers)
    error = first_error(kept)
    if as_json:
        from runner.cli.as_document.follow import keep_document

        output.print_document(keep_document(kept))
        sys.exit(error.exit_code if error else 0)
    for each in kept:
        if each.error is None and each.into:
            click.echo(f"{each.run.run_id}  {each.into}")
    if error:
        raise error
