"""How a command that did not succeed ends: its message or document, and its exit code. Every error is caught here, once."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from runner.cli.audience import colours
from runner.domain.errors import GpurunError, Interrupted, UserError

if TYPE_CHECKING:
    from runner.cli.documents.errors import Error

INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended: 128 + SIGINT


@contextmanager
def closed_pipe_is_no_error() -> Iterator[None]:
    """``gpurun logs | head -1`` exits with 0. Click would exit with 1, and would be silent where another pipe broke."""
    try:
        yield
    except BrokenPipeError as error:
        if not _is_unread(1):
            raise _unexpected(error) from error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)


def _is_unread(descriptor: int) -> bool:
    """Whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def exit_for(error: BaseException, arguments: list[str]) -> NoReturn:
    """Shows why a command ended, as a document where ``--json`` is among its arguments, and exits with the error's code.

    An error that nobody foresaw is raised again where GPURUN_DEBUG is set, for its traceback.
    """
    as_json = "--json" in gpuruns_own(arguments)
    if isinstance(error, click.exceptions.Abort):  # click raises it for Ctrl-C and for EOFError
        error = error.__cause__ or KeyboardInterrupt()
    if isinstance(error, KeyboardInterrupt):
        _show_interrupt(_what_goes_on(error, arguments), as_json)
        sys.exit(INTERRUPTED)
    if isinstance(error, click.ClickException):
        _show_usage(error, as_json)
        sys.exit(UserError.exit_code)
    if not isinstance(error, GpurunError):
        if os.environ.get("GPURUN_DEBUG") or not isinstance(error, Exception):
            raise error
        error = _unexpected(error)
    _show(error, as_json)
    sys.exit(error.exit_code)


def gpuruns_own(arguments: list[str]) -> list[str]:
    """The arguments before ``--``: what stands behind it is for another program (``gpurun exec RUN -- nvidia-smi --json``)."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _what_goes_on(error: KeyboardInterrupt, arguments: list[str]) -> str:
    """What an interrupt means for the runs: the workflow's own words where it gave some."""
    meaning = str(error) if isinstance(error, Interrupted) else ""
    if not meaning and {"submit", "resume"}.intersection(
        arguments[:1]
    ):  # once a run has an id, the workflow gives words
        meaning = "Nothing was started."
    return meaning or "What runs on the box goes on as it is; gpurun status shows it, gpurun stop ends it."


def _show_interrupt(meaning: str, as_json: bool) -> None:
    from runner.cli.output import print_document

    click.echo(f"\nInterrupted. {meaning}", err=True)
    if as_json:
        body: Error = {
            "kind": "Interrupted",
            "message": "interrupted",
            "meaning": meaning,
            "hint": "",
            "exit_code": INTERRUPTED,
        }
        print_document({"error": body})


def _show_usage(error: click.ClickException, as_json: bool) -> None:
    if not as_json:
        error.show()
        return
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "gpurun --help"
    _show(UserError(error.format_message(), meaning="Nothing was done.", hint=hint), as_json)


def _show(error: GpurunError, as_json: bool) -> None:
    if as_json:
        from runner.cli.as_document.errors import failure_document
        from runner.cli.output import print_document

        return print_document(failure_document(error))
    from runner.domain.terminal import without_controls

    click.echo(click.style("error: ", fg="red", bold=True) + without_controls(error.message), err=True, color=colours())
    for text in (error.meaning, error.hint):
        if text:
            click.echo("  " + without_controls(text).replace("\n", "\n  "), err=True)


def _unexpected(error: Exception) -> GpurunError:
    """The error that a person is shown for one that nobody foresaw."""
    from remote_payload.agent.wire.redact import redact
    from runner.files import FULL, trouble

    if isinstance(error, OSError) and error.errno in FULL:
        return trouble(error)
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        hint = "Set GPURUN_DEBUG=1 to see where it happened."
        return GpurunError(redact(what), meaning="What runs on the box goes on running.", hint=hint)
    return GpurunError(
        redact(f"{type(error).__name__}: {error}"),
        meaning="This is a bug of gpurun's. What runs on the box goes on running.",
        hint="Repeat the command with GPURUN_DEBUG=1 and report what it prints.",
    )
