"""``gpurun done``."""

from __future__ import annotations

import sys

import click

from runner.cli import options


@click.command(
    "done",
    epilog="\b\nExamples:\n  gpurun done && vastai destroy instance 12345\n"
    "  gpurun done --give-up 7f3a       a run on that box whose results nobody needs, or that is not yours",
)
@options.run_argument
@click.option(
    "--leave-behind", is_flag=True, help="Give up what is never fetched (links out of outputs/, devices, odd names)."
)
@click.option(
    "--give-up",
    multiple=True,
    metavar="RUN",
    shell_complete=options.complete_run,
    help="Another run on the box, or what was pushed for one, may go with it. May be given several times.",
)
@options.json_option
def command(run: str | None, leave_behind: bool, give_up: tuple[str, ...], as_json: bool) -> None:
    """Verify that every run on the box is over and home, wipe secrets, say "safe to destroy" or why not (exit 6).

    It holds for the whole box: runs of other machines count too, and are a reason to say no.
    """
    from runner import store
    from runner.domain.quantities import pluralise
    from runner.workflow.done import done

    verdict = done(store.find_started(run), options.reporter(as_json), leave_behind=leave_behind, give_up=give_up)
    if as_json:
        options.print_json(
            {
                "run_id": verdict.run_id,
                "host": verdict.host,
                "safe_to_destroy": verdict.safe,
                "reasons": verdict.reasons,
                "files": verdict.files,
                "left_out": [{"path": each.path, "why": each.why} for each in verdict.left_out],
                "home": sorted(verdict.homes),
                "given_up": list(verdict.given_up),
            }
        )
        sys.exit(0 if verdict.safe else 6)
    for each in verdict.left_out:
        click.echo(f"left on the box: {each}", err=True)
    if verdict.safe:
        click.echo(
            f"{verdict.host}: {pluralise(len(verdict.homes), 'run')}, {pluralise(verdict.files, 'file')} home and verified, logs complete,"
            " no secret left. Safe to destroy."
        )
    else:
        click.echo("NOT safe to destroy:")
        for reason in verdict.reasons:
            options.say_untrusted(f"  {reason}")
    sys.exit(0 if verdict.safe else 6)
