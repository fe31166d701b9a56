"""What commands print on stdout: the document of ``--json``, lines that may hold names from a box, and log bytes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click

from runner.cli.audience import is_person
from runner.domain.progress import Reporter, Silent
from runner.domain.terminal import TerminalFilter, clean

if TYPE_CHECKING:
    from runner.cli.documents import Document

LONGEST_LINE = 2000  # characters of untrusted text


def reporter(as_json: bool) -> Reporter:
    """Where a workflow reports its progress: stderr, or nowhere with ``--json``."""
    if as_json:
        return Silent()
    from runner.cli.render import terminal_reporter

    return terminal_reporter()


def print_document(document: Document) -> None:
    """Prints the one document of ``--json``."""
    print_json(document)


def print_json(value: object) -> None:
    """Prints a JSON value in ASCII, and null for a number that is not finite, since JSON has no such numbers."""
    click.echo(json.dumps(_finite(value), indent=1, allow_nan=False))


def print_untrusted(text: str, prefix: str = "", *, err: bool = False) -> None:
    """Prints one line that may hold names from a box, without control sequences; its indent is kept."""
    click.echo(prefix + " " * (len(text) - len(text.lstrip())) + clean(text, LONGEST_LINE), err=err)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class LogPrinter:
    """Prints log bytes. Unless ``raw``, control sequences are removed, also those that are split over two calls."""

    def __init__(self, *, raw: bool = False, silent: bool = False) -> None:
        self._raw = raw
        self._silent = silent
        self._filter = TerminalFilter()
        self._mid_line = False

    def __call__(self, data: bytes) -> None:
        if self._silent:
            return
        self._write(data if self._raw else self._filter.feed(data).encode("utf-8"))

    def line(self, head: str, data: bytes) -> None:
        """Prints a line with ``head`` in front of it."""
        self._write(head.encode() + b"  ")
        self(data)

    def finish(self) -> None:
        """Ends the log: prints what an unfinished character becomes, and on a terminal begins a new line."""
        if self._silent or self._raw:
            return
        self._write(self._filter.finish().encode("utf-8"))
        if is_person(sys.stdout):
            self._write(b"\x1b[0m\n" if self._mid_line else b"\x1b[0m")

    def _write(self, data: bytes) -> None:
        if data:
            self._mid_line = not data.endswith(b"\n")
            left = memoryview(data)
            # With PYTHONUNBUFFERED a write may take only a part: Ctrl-Z or a full pipe interrupts it.
            while left:
                left = left[sys.stdout.buffer.write(left) :]
            sys.stdout.buffer.flush()


class Shown:
    """Remembers how many bytes of a local log a terminal has shown, also when the command is interrupted.

    The number is read on entry and written on exit. It is 0, and not written, unless ``wanted`` and stdout is a terminal: a pipe
    gets the whole log.
    """

    def __init__(self, log: Path, wanted: bool) -> None:
        self._log = log
        self._note = log.with_name(".shown")
        self._wanted = wanted and is_person(sys.stdout)

    def __enter__(self) -> int:
        try:
            return int(self._note.read_text("ascii")) if self._wanted else 0
        except (OSError, ValueError):
            return 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._wanted and self._log.exists():
            self._note.write_text(str(self._log.stat().st_size), "ascii")
