"""``gpurun list``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options

if TYPE_CHECKING:
    from runner.domain.status import Status


@click.command(
    "list",
    epilog="\b\nExamples:\n  gpurun list\n  gpurun list --all --json\n  gpurun list --host root@1.2.3.4",
)
@options.host_option(required=False)
@click.option("--all", "everything", is_flag=True, help="All runs, not only the latest 30.")
@options.json_option
def command(host: str | None, everything: bool, as_json: bool) -> None:
    """All runs of this machine as last seen, or with --host all on a box as they are now."""
    if host is not None:
        return _on_host(host, as_json)
    from runner import store
    from runner.workflow.listing import line_of

    runs, damaged = store.load_all(limit=None if everything else 30)
    lines = [line_of(run) for run in runs]
    if as_json:
        return options.print_json({"runs": lines, "damaged": [error.message for error in damaged]})
    columns = ("run", "host", "status", "step", "started", "cost")
    rows = [[str(line[name] if line[name] is not None else "") for name in columns] for line in lines]
    options.print_rows(columns, rows, "no run yet; start one: gpurun submit JOB --host HOST")
    for error in damaged:
        click.echo(f"warning: {error.message}", err=True)


def _on_host(host: str, as_json: bool) -> None:
    from runner.workflow.status import on_host

    found = on_host(host, options.reporter(as_json))
    if as_json:
        return options.print_json({"host": host, "runs": [_as_json(status) for status in found]})
    rows = [[status.run_id, status.phase, status.outcome or "", status.cause or "", _age(status)] for status in found]
    options.print_rows(("run", "phase", "outcome", "cause", "started"), rows, f"no run on {host}")


def _as_json(status: Status) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(status)


def _age(status: Status) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(status.started_at)) if status.started_at else ""
