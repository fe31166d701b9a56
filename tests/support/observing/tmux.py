"""A terminal of any size that a test can read: a tmux server of its own, with one shell."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.cli.audience import AGENT_VARIABLES
from tests.support.cli import REPOSITORY

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: apt install tmux")


class Tmux:
    """The one pane of the server at the socket ``socket``."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def _do(self, *words: str) -> str:
        command = ["tmux", "-u", "-f", "/dev/null", "-S", str(self._socket), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def type(self, text: str) -> None:
        """Types a line."""
        self._do("send-keys", "-l", text)
        self._do("send-keys", "Enter")

    def press(self, key: str) -> None:
        """Presses one key, such as ``q`` or ``C-c``."""
        self._do("send-keys", key)

    def resize(self, columns: int, rows: int) -> None:
        self._do("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without spaces at the ends of lines."""
        return [line.rstrip() for line in self._do("capture-pane", "-p").split("\n")]


@contextmanager
def terminal(folder: Path, columns: int, rows: int, **environment: str) -> Iterator[Tmux]:
    """A terminal of this size with a shell in the repository. Its prompt is ``$``."""
    kept = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "PS1": "$ ", "HISTFILE": "/dev/null", **environment}
    # A person sits here. pytest-xdist exports COLUMNS: a program would believe that rather than its terminal.
    kept = {name: value for name, value in kept.items() if name not in ("TMUX", "COLUMNS", "LINES", *AGENT_VARIABLES)}
    socket = folder / "tmux"
    shell = ["new-session", "-d", "-x", str(columns), "-y", str(rows), "bash", "--norc", "--noprofile"]
    subprocess.run(["tmux", "-u", "-f", "/dev/null", "-S", str(socket), *shell], env=kept, cwd=REPOSITORY, check=True)
    tmux = Tmux(socket)
    try:
        yield tmux
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # its shell may have ended
            tmux._do("kill-server")
