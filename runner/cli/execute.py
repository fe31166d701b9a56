"""``gpurun exec``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.cli.errors import gpuruns_own

if TYPE_CHECKING:
    from runner.cli.documents import scripting as documents


class BesideRun(click.Command):
    """A command whose arguments after ``--`` are another program's; before it RUN may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError where no program is named."""
        own = gpuruns_own(args)
        words = args[len(own) + 1 :]
        rest = super().parse_args(ctx, own)
        ctx.params["words"] = words
        if not ctx.params["words"]:
            ctx.fail("name the command after --, such as: gpurun exec RUN -- nvidia-smi")
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "--", "COMMAND..."]


@click.command(
    "exec",
    cls=BesideRun,
    epilog="\b\nExamples:\n  gpurun exec -- nvidia-smi\n  gpurun exec legal -- python -c 'import torch; print(torch.__version__)'\n"
    "  gpurun exec --host root@1.2.3.4 -- df -h\n  gpurun exec -- cat config.json > config.json",
)
@options.beside_options
def command(run: str | None, host: str | None, as_json: bool, words: Sequence[str]) -> None:
    """Run a command in a run's folder, with its environment.

    After -- stand the command's words. No shell reads them: for one, write -- bash -c "cd out && ls".

    It has the run's variables, its environment's programs in PATH and the GPUs that the run has now, but not its secrets, and is no
    part of the run. Its input and output are passed through; the exit code is the command's, or 255 where the connection broke.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    run_id, where, argv = argv_for(run, host, words, as_json, terminal=terminal)
    if not as_json:
        sys.stdout.flush()
        os.execvp(argv[0], argv)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    document: documents.Exec = {
        "run_id": run_id,
        "host": where,
        "exit_code": done.returncode,
        "stdout": done.stdout,
        "stderr": done.stderr,
    }
    output.print_document(document)
    sys.exit(done.returncode)


def argv_for(
    run: str | None, host: str | None, words: Sequence[str], as_json: bool, *, terminal: bool
) -> tuple[str | None, str, list[str]]:
    """The run's id where it is about one, its box, and the argv of ``ssh``. Raises UsageError for a run and a host."""
    from runner import store
    from runner.domain.progress import Silent
    from runner.workflow.scripting.beside import ssh_to_host, ssh_to_run

    if run and host:
        raise click.UsageError("give a run or --host, not both")
    report = output.reporter(as_json) if terminal else Silent()
    if host:
        return None, host, ssh_to_host(host, words, report, terminal=terminal)
    record = store.find_started(run)
    return record.run_id, record.host, ssh_to_run(record, words, report, terminal=terminal)
