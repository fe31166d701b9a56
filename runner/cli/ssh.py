"""``gpurun ssh``."""

from __future__ import annotations

import os
import sys

import click

from runner.cli import options, output


@click.command(
    "ssh",
    epilog="\b\nExamples:\n  gpurun ssh                      in the folder of the latest run\n"
    "  gpurun ssh legal\n  gpurun ssh --host root@1.2.3.4",
)
@options.beside_options
def command(run: str | None, host: str | None, as_json: bool) -> None:
    """Open a shell in a run's folder, or on a box.

    The shell has the run's variables and its environment's programs in PATH, but not its secrets. It is no part of the run: stop does
    not end it, and what you do in the folder is seen by the run. OpenSSH connects, with the key that gpurun has pinned.
    """
    from runner.cli.execute import argv_for

    if not as_json and not sys.stdin.isatty():
        raise click.UsageError("a shell needs a terminal; without one: gpurun exec RUN -- COMMAND")
    run_id, where, argv = argv_for(run, host, (), as_json, terminal=True)
    if as_json:
        return output.print_document({"run_id": run_id, "host": where, "command": argv})
    os.execvp(argv[0], argv)
