"""Options and arguments that commands share, spelt once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from runner.domain.progress import Reporter, Silent

F = TypeVar("F", bound=Callable[..., Any])


class Count(click.IntRange):
    """A number of something; click would say "not a valid integer range"."""

    def __init__(self, noun: str, least: int = 0) -> None:
        super().__init__(min=least)
        self.name = f"number of {noun}"


def json_option(function: F) -> F:
    """``--json``: one JSON document on stdout and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def run_argument(function: F) -> F:
    """``[RUN]``: an id, its unique beginning or ending; the latest run when left out."""
    return click.argument("run", required=False, shell_complete=complete_run)(function)


def host_option(*, required: bool) -> Callable[[F], F]:
    """``--host``: where the box is, in any spelling."""
    text = "user@host[:port], ssh://…, an ssh alias, your provider's ssh line, or local."
    return click.option("--host", required=required, metavar="HOST", help=text)


def job_options(function: F) -> F:
    """What every command that takes a job file and a host has in common."""
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a field of the job: settings.epochs=1.",
        ),
        click.option(
            "--volume",
            metavar="DIR",
            help="Work below DIR on the box instead of the home folder; remembered for the host.",
        ),
        click.option(
            "--strict", is_flag=True, help="Refuse a host that is not pinned yet, instead of showing and pinning it."
        ),
        click.option(
            "--checksum", is_flag=True, help="Read every file to decide what changed, instead of size and time."
        ),
    ):
        function = option(function)
    return function


def reporter(as_json: bool) -> Reporter:
    """Where a workflow reports: the terminal, or nowhere for ``--json``."""
    if as_json:
        return Silent()
    from runner.cli.render import terminal_reporter

    return terminal_reporter()


def print_json(value: Any) -> None:
    """The one document of ``--json``."""
    click.echo(json.dumps(value, indent=1, default=str))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """A table on stdout: rich on a terminal, aligned plain text in a pipe. Cells are cleaned: names come from boxes."""
    from runner.domain.terminal import clean

    if sys.stdout.isatty():
        from runner.cli.render import print_table

        return print_table(columns, rows, empty)
    cells = [[clean(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    for row in cells if rows else ():
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not rows:
        click.echo(empty)


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Run ids that begin so, the newest first, for the shell."""
    from runner import store

    return [run_id for run_id in reversed(store.run_ids()) if run_id.startswith(incomplete)]


def say_untrusted(text: str, prefix: str = "") -> None:
    """One line on stdout that may hold names from a box; its indent is kept."""
    from runner.domain.terminal import clean

    click.echo(prefix + " " * (len(text) - len(text.lstrip())) + clean(text, 2000))
