"""The terminal that ``gpurun watch`` draws on. However it ends, the terminal is as it was before."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType, TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from runner.cli.watching.keys import one_by_one
from runner.cli.watching.picture import Picture
from runner.cli.watching.rows import Row
from runner.cli.watching.screen import screen

STYLES = {"title": "bold", "warning": "yellow", "dim": "dim", "": ""}


def size() -> tuple[int, int]:
    """Columns and rows of the terminal; 80 × 24 where there is none."""
    found = shutil.get_terminal_size((80, 24))
    return max(10, found.columns), max(4, found.lines)


class Display:
    """A screen of its own while the block lasts. Ctrl-C stays an interrupt, and SIGTERM ends the block as ``SystemExit``."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._stack = ExitStack()
        self._shown: list[Row] = []

    def __enter__(self) -> Display:
        with ExitStack() as stack:
            before = signal.signal(signal.SIGTERM, _terminate)
            stack.callback(signal.signal, signal.SIGTERM, before)
            stack.enter_context(one_by_one())
            stack.enter_context(self._live)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stack.close()

    def draw(self, pictures: Sequence[Picture], footer: str) -> None:
        """Shows these runs; writes nothing where that changes nothing."""
        rows = screen(pictures, *size(), footer)
        if rows != self._shown:
            self._shown = rows
            self._live.update(_text(rows), refresh=True)


def _text(rows: Sequence[Row]) -> Text:
    text = Text(no_wrap=True, overflow="crop", end="")
    for place, row in enumerate(rows):
        text.append("\n" if place else "")
        for span in row:
            text.append(span.text, STYLES[span.style])
    return text


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
