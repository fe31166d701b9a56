"""Progress and notes on stderr, printed by rich. Besides it only ``keep_display.py``, ``sweep.py`` and ``watching/`` import rich."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from runner.cli.audience import is_agent
from runner.domain.progress import Reporter, Stage
from runner.domain.quantities import format_size
from runner.domain.terminal import clean

_DRAWN = re.compile("[\u2500-\u259f\u2800-\u28ff]+|#{4,}")  # the characters of progress bars: lines, blocks and braille


def terminal_reporter() -> Reporter:
    """Progress bars on a terminal, plain lines elsewhere."""
    console = Console(stderr=True, highlight=False)
    return Bars(console) if console.is_terminal and not is_agent() else Lines(console)


class Bars:
    """Progress bars: one for each stage that runs now. A stage that has ended leaves one line with its duration."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
        )
        self._open = 0
        self._counting = threading.Lock()  # stages of several boxes begin and end at once

    @contextmanager
    def stage(self, title: str, unit: str = "") -> Iterator[Stage]:
        task = self._progress.add_task(title, total=None, amount="", note="")
        with self._counting:
            self._open += 1
            self._progress.start()
        began = time.monotonic()
        ended = "[green]✓[/]"
        try:
            yield _Task(self._progress, task, unit)
        except BaseException:
            ended = "[red]✗[/]"
            raise
        finally:
            note = next(each.fields["note"] for each in self._progress.tasks if each.id == task)
            self._progress.remove_task(task)
            with self._counting:
                self._open -= 1
                if not self._open:
                    self._progress.stop()
            tail = f"  [dim]{note}[/]" if note else ""
            self._console.print(f"{ended} {title} [dim]{time.monotonic() - began:.1f}s[/]{tail}")

    def note(self, text: str) -> None:
        self._console.print(escape(text))

    def warn(self, text: str) -> None:
        self._console.print(f"[yellow]![/] {escape(text)}")


class _Task:
    def __init__(self, progress: Progress, task: object, unit: str) -> None:
        self._progress, self._task, self._unit = progress, task, unit

    def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
        fields: dict[str, object] = {}
        if done is not None:
            fields["completed"] = done
            shown = format_size(done) if self._unit == "bytes" else f"{done:g}"
            fields["amount"] = shown + (
                f" / {format_size(total) if self._unit == 'bytes' else f'{total:g}'}" if total else ""
            )
        if total is not None:
            fields["total"] = total
        if note is not None:
            fields["note"] = escape(one_line(note, 60))
        self._progress.update(self._task, **fields)  # type: ignore[arg-type]


def one_line(note: str, limit: int) -> str:
    """The last line of another program's progress (pip, uv, apt), without the progress bars in it."""
    last = note.rstrip("\r\n").rpartition("\r")[2]
    return clean(" ".join(_DRAWN.sub(" ", last).split()), limit)


class Lines:
    """One line for each stage that has ended: for a pipe, a file, CI."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, title: str, unit: str = "") -> Iterator[Stage]:
        began = time.monotonic()
        task = _Quiet()
        ended = "ok"
        try:
            yield task
        except BaseException:
            ended = "failed"
            raise
        finally:
            tail = f" ({task.note})" if task.note else ""
            self.note(f"{title}: {ended} in {time.monotonic() - began:.1f}s{tail}")

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")


class _Quiet:
    note = ""

    def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
        if note is not None:
            self.note = one_line(note, 100)
