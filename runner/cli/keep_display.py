"""What ``gpurun keep`` shows while it stays: a table that changes on a terminal, lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.cli.audience import is_person
from runner.cli.output import reporter
from runner.domain.progress import Reporter
from runner.domain.terminal import clean, without_controls
from runner.workflow.keeping.board import KeptRun, Line, would_be_lost
from runner.workflow.observing.listing import describe, step_of

if TYPE_CHECKING:
    from rich.live import Live

    from runner.workflow.keep import Display

LINES_EVERY = 600.0  # seconds between two lines about a run of which nothing new came home
COLUMNS = ("run", "status", "step", "home", "would be lost", "now")


def row(kept: KeptRun) -> list[str]:
    """The cells of one run."""
    lost = kept.lost_seconds
    return [
        kept.run.run_id,
        describe(kept.run),
        step_of(kept.run),
        kept.home.name if kept.home else "",
        "" if lost is None else f"{lost / 60:.1f} min",
        clean("home" if kept.over and not kept.error else kept.unreachable or kept.trouble or kept.doing, 60),
    ]


@contextmanager
def display(as_json: bool) -> Iterator[Display]:
    """Where ``keep`` shows its runs: nowhere with ``--json``, in a table on a terminal, in lines elsewhere."""
    if as_json:
        yield Hidden()
    elif not is_person(sys.stderr):
        yield Lines(reporter(as_json))
    else:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True, highlight=False), auto_refresh=False) as live:
            yield Table(live)


class Hidden:
    """Shows nothing: the document comes at the end."""

    def line(self, line: Line) -> None:
        pass

    def show(self, runs: Sequence[KeptRun]) -> None:
        pass


class Lines:
    """A line for each thing that happened, and now and then one for each run of which nothing new has come."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._said_at: dict[str, float] = {}

    def line(self, line: Line) -> None:
        text = without_controls(line.text)
        if line.urgent:
            self._report.warn(text)
        else:
            self._report.note(text)

    def show(self, runs: Sequence[KeptRun]) -> None:
        for kept in [each for each in runs if not each.over]:
            run_id, now = kept.run.run_id, time.monotonic()
            if now - self._said_at.setdefault(run_id, 0.0 if kept.lost_seconds is not None else now) >= LINES_EVERY:
                self._said_at[run_id] = now
                cells = dict(zip(COLUMNS, row(kept), strict=True))
                home = f"{cells['home']} is home" if cells["home"] else "no checkpoint is home"
                self._report.note(f"{run_id}: {cells['status']} {cells['step']}, {home}{would_be_lost(kept)}")


class Table:
    """One row a run, drawn again as it changes; lines that stay appear above it."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def line(self, line: Line) -> None:
        text = escape_markup(without_controls(line.text))
        self._live.console.print(f"[yellow]![/] {text}" if line.urgent else text)

    def show(self, runs: Sequence[KeptRun]) -> None:
        from rich.table import Table as Drawn

        drawn = Drawn(box=None, pad_edge=False)
        for name in COLUMNS:
            drawn.add_column(name, no_wrap=name == COLUMNS[0], overflow="fold")
        for kept in runs:
            drawn.add_row(*map(escape_markup, row(kept)))
        self._live.update(drawn, refresh=True)


def escape_markup(text: str) -> str:
    from rich.markup import escape

    return escape(text)
