"""Runs the command line tool of a GPU provider on this machine: without a shell, and with a time limit. Its keys are never shown."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from remote_payload.agent.wire.redact import REDACTED, redact
from runner.domain.errors import HostError
from runner.domain.job import SECRET_NAME
from runner.domain.terminal import clean_lines

LARGEST = 8 << 20  # bytes of output that are read
_KEY = re.compile(r"(?=[A-Za-z_]*[0-9])[A-Za-z0-9_]{24,}")  # the keys of both providers are longer; no id is


@dataclass(frozen=True)
class Ended:
    """How a tool ended: ``code`` is None where it was stopped at its time limit. ``out`` may hold secrets: it is for programs."""

    code: int | None
    out: str
    errors: str

    def said(self) -> str:
        """What it printed, for people, in lines of their own; keys are left out."""
        secrets = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
        shown = clean_lines(_KEY.sub(REDACTED, redact(f"{self.out}\n{self.errors}", secrets)), 1000)
        return f":\n{shown}" if shown else ""


def run_tool(command: Sequence[str], limit: float, answer: bytes = b"") -> Ended:
    """Runs a command for at most ``limit`` seconds, ``answer`` on its standard input. Raises HostError where it is not installed.

    Its output goes to files, since a process that it leaves behind would keep a pipe open.
    """
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        stdin.write(answer)
        stdin.seek(0)
        try:
            process = subprocess.Popen(list(command), stdin=stdin, stdout=out, stderr=errors, start_new_session=True)
        except OSError as error:
            raise HostError(
                f"{command[0]} cannot be run on this machine: {error.strerror}",
                meaning="Nothing was destroyed.",
                hint="Install your provider's command line tool here and log in with it, or destroy the box in its console.",
            ) from None
        code: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=limit)
        finally:
            if code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Ended(code, *(_content(file) for file in (out, errors)))


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(LARGEST).decode("utf-8", "replace")
