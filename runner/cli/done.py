"""``gpurun done``."""

from __future__ import annotations

import sys

import click

from runner.cli import options


@click.command("done", epilog="\b\nExample:\n  gpurun done && vastai destroy instance 12345")
@options.run_argument
@click.option(
    "--leave-behind", is_flag=True, help="Give up what is never fetched (links out of outputs/, devices, odd names)."
)
@options.json_option
def command(run: str | None, leave_behind: bool, as_json: bool) -> None:
    """Verify that everything is home, wipe secrets from the box, say "safe to destroy" or why not (exit 6)."""
    from runner import store
    from runner.domain.words import count
    from runner.workflow.done import done

    verdict = done(store.find(run), options.reporter(as_json), leave_behind=leave_behind)
    if as_json:
        options.print_json(
            {
                "run_id": verdict.run_id,
                "safe_to_destroy": verdict.safe,
                "reasons": verdict.reasons,
                "files": verdict.files,
                "left_out": [{"path": each.path, "why": each.why} for each in verdict.left_out],
            }
        )
        sys.exit(0 if verdict.safe else 6)
    for each in verdict.left_out:
        click.echo(f"left on the box: {each}", err=True)
    if verdict.safe:
        click.echo(
            f"{verdict.run_id}: {count(verdict.files, 'file')} home and verified, log complete, no secret left. Safe to destroy."
        )
    else:
        click.echo("NOT safe to destroy:")
        for reason in verdict.reasons:
            options.say_untrusted(f"  {reason}")
    sys.exit(0 if verdict.safe else 6)
