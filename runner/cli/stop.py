"""``gpurun stop``."""

from __future__ import annotations

import click

from runner.cli import options


@click.command(
    "stop", epilog="\b\nExamples:\n  gpurun stop\n  gpurun stop --grace 0      kill at once, without a last checkpoint"
)
@options.run_argument
@click.option(
    "--grace", type=click.FloatRange(min=0), default=45, show_default=True, help="Seconds between TERM and KILL."
)
@options.json_option
def command(run: str | None, grace: float, as_json: bool) -> None:
    """End a run's whole process tree, and prove it."""
    from runner import store
    from runner.workflow.listing import describe
    from runner.workflow.stop import stop

    record = store.find(run)
    stopped = stop(record, options.reporter(as_json), grace)
    if as_json:
        return options.print_json(
            {"run_id": record.run_id, "status": record.status, "device_holders": list(stopped.device_holders)}
        )
    click.echo(f"{record.run_id}: {describe(record)}; no process of it is left.")
    for holder in stopped.device_holders:
        options.say_untrusted(f"a process that is not this run's has a GPU open: {holder}")
