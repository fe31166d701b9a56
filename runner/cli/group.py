"""The command line: one group, its commands loaded when they are called, every error caught once."""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from runner import __version__
from runner.cli import interrupts
from runner.domain.errors import GpurunError, Interrupted, UserError

# name → (module under runner.cli, one line for --help). Nothing is imported until it is called.
COMMANDS = {
    "init": ("init", "Write a commented job file for the code in this folder."),
    "validate": ("validate", "Check job files offline."),
    "check": ("check", "Everything that can fail, before money is spent."),
    "submit": ("submit", "Push, provision, log in, launch: start a run on a box."),
    "list": ("list_runs", "All runs of this machine, or all on a box."),
    "status": ("status", "One run: phase, step, ETA, loss, GPU, cost so far."),
    "logs": ("logs", "The log, from where this machine left off."),
    "fetch": ("fetch", "Bring outputs home, verified, while or after it trains."),
    "smoke-test": ("smoke_test", "Load what was fetched and compare it with the box's own predictions."),
    "stop": ("stop", "End a run's whole process tree, and prove it."),
    "resume": ("resume", "Go on from the last good checkpoint, as a new run."),
    "done": ("done", "Verify that all is home, wipe secrets, say whether the box may go."),
    "checkpoints": ("checkpoints", "The checkpoints of a run."),
    "sample": ("sample", "Try a checkpoint: prompts in, text out."),
    "hosts": ("hosts", "Known boxes and their pinned keys."),
    "clean": ("clean", "What gpurun may delete on a box."),
}

EPILOG = """\b
Examples:
  gpurun submit jobs/legal.yaml --host root@remote-gpu
  gpurun submit jobs/demo.yaml --host local --follow
  gpurun submit jobs/legal.yaml --host "ssh -p 41022 root@1.2.3.4"
  gpurun logs -f          (every command without a run id means the latest run)

\b
Exit codes: 0 done, 1 unexpected, 2 job file or arguments, 3 host, 4 transfer, 5 launch,
6 artifact or smoke test, 10 the run failed, 11 cancelled, 12 lost.
Set GPURUN_HOME to keep local state elsewhere than ~/.gpurun. NO_COLOR is obeyed."""


class Commands(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """``--help`` and ``--version`` print here."""
        with _unread_pipe_is_no_error():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with _unread_pipe_is_no_error():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"runner.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"there is no command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gpurun")
def gpurun() -> None:
    """Train on a rented GPU box over SSH, and bring the model home, checked."""


@contextmanager
def _unread_pipe_is_no_error() -> Iterator[None]:
    """``gpurun logs | head -1``: click would exit with 1, and say nothing either where the pipe was another one."""
    try:
        yield
    except BrokenPipeError as error:
        if not _is_unread(1):
            raise _unexpected(error) from error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)


def _is_unread(descriptor: int) -> bool:
    """Whether the other end of a pipe is closed."""
    look = select.poll()
    look.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in look.poll(0))


def run(arguments: list[str]) -> None:
    """Runs a command and exits with its code. A traceback is for GPURUN_DEBUG=1 only."""
    try:
        with interrupts.raised():
            code = gpurun.main(arguments, prog_name="gpurun", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort as error:  # click's word for Ctrl-C and for EOFError
        if not isinstance(error.__cause__, EOFError):
            _interrupted(error.__cause__, arguments)
        _unforeseen(error.__cause__, "--json" in arguments)
    except KeyboardInterrupt as error:
        _interrupted(error, arguments)
    except click.ClickException as error:
        _wrong_usage(error, "--json" in arguments)
    except GpurunError as error:
        _show(error, "--json" in arguments)
        sys.exit(error.exit_code)
    except Exception as error:
        _unforeseen(error, "--json" in arguments)


def _interrupted(error: BaseException | None, arguments: list[str]) -> NoReturn:
    """Ends the command, with what a workflow said of it."""
    as_json = "--json" in arguments
    meaning = str(error) if isinstance(error, Interrupted) else ""
    if not meaning and {"submit", "resume"}.intersection(arguments[:1]):  # they say it from the moment a run has an id
        meaning = "Nothing was started."
    meaning = meaning or "What runs on the box goes on as it is; gpurun status shows it, gpurun stop ends it."
    click.echo(f"\nInterrupted. {meaning}", err=True)
    if as_json:
        body = {"kind": "Interrupted", "exit_code": 130, "message": "interrupted", "meaning": meaning, "hint": ""}
        click.echo(json.dumps({"error": body}, indent=1))
    sys.exit(130)


def _unforeseen(error: Exception, as_json: bool) -> NoReturn:
    if os.environ.get("GPURUN_DEBUG"):
        raise error
    _show(_unexpected(error), as_json)
    sys.exit(1)


def _wrong_usage(error: click.ClickException, as_json: bool) -> None:
    if as_json:
        context = getattr(error, "ctx", None)
        hint = f"{context.command_path} --help" if context else "gpurun --help"
        _show(UserError(error.format_message(), meaning="Nothing was done.", hint=hint), as_json)
    else:
        error.show()
    sys.exit(2)


def _show(error: GpurunError, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": error.as_json()}, indent=1))
        return
    from runner.domain.terminal import without_controls

    click.echo(click.style("error: ", fg="red", bold=True) + without_controls(error.message), err=True)
    for text in (error.meaning, error.hint):
        if text:
            click.echo("  " + without_controls(text).replace("\n", "\n  "), err=True)


def _unexpected(error: Exception) -> GpurunError:
    from remote_payload.agent.wire.redact import redact
    from runner.files import FULL, trouble

    if isinstance(error, OSError) and error.errno in FULL:
        return trouble(error)
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        hint = "Set GPURUN_DEBUG=1 for the full story."
        return GpurunError(redact(what), meaning="What runs on the box goes on running.", hint=hint)
    return GpurunError(
        redact(f"{type(error).__name__}: {error}"),
        meaning="This is a bug of gpurun's. What runs on the box goes on running.",
        hint="Repeat the command with GPURUN_DEBUG=1 and report what it prints.",
    )
