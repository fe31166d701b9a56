"""One run on a rectangle of the terminal: figures, curves, the end of the log. Pure.

Each row has a rank. The rows of the lowest ranks that there is room for are shown, in their own order; curves get the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from runner.cli import figures
from runner.cli.watching.picture import Picture
from runner.cli.watching.plot import plot
from runner.cli.watching.rows import Row, Span, beside, fit, flow
from runner.domain.quantities import format_duration
from runner.domain.terminal import clean
from runner.workflow.observing.listing import describe, short_host

NARROWEST = 34  # cells of a plot
LOWEST = 4  # rows of a plot, its title among them
GPU = 52  # cells of a GPU's figures
URGENT = ("flag", "oom")


class Ranked(NamedTuple):
    """A row and its rank: the lowest is shown first."""

    rank: int
    row: Row


def panel(picture: Picture, width: int, height: int) -> list[Row]:
    """At most ``height`` rows of at most ``width`` cells."""
    above, below = list(_above(picture, width)), list(_below(picture, width, height))
    series = picture.series(2 * height) if height >= 8 and width > 12 else []
    for_plots = min(max(LOWEST, height // 2), height - 4) if series else 0
    ranks = [rank for rank, _ in (*above, *below)]
    chosen = set(sorted(range(len(ranks)), key=ranks.__getitem__)[: max(0, height - for_plots)])
    head = [row for place, (_, row) in enumerate(above) if place in chosen]
    foot = [row for place, (_, row) in enumerate(below, len(above)) if place in chosen]
    return [*head, *_plots(picture, width, height - len(head) - len(foot)), *foot]


def _above(picture: Picture, width: int) -> Iterator[Ranked]:
    """Who it is, how far, how long, what it costs."""
    seen = picture.seen
    for place, text in enumerate(flow([seen.run.run_id, f"{describe(seen.run)} on {short_host(seen.run)}"], width)):
        yield Ranked(place, (Span(text, "title"),))
    if picture.trouble:
        yield Ranked(1, (Span(fit(clean(picture.trouble), width), "warning"),))
    status = seen.status
    if status is None:
        return
    for why in filter(None, (status.evidence, status.advice)):
        yield Ranked(4, (Span(fit(clean(why), width), "warning"),))
    step = status.progress.get("step")
    if progress := figures.progress(step):
        yield Ranked(2, (Span(_bar(progress, step, width)),))
    left, cost = figures.left(seen), figures.cost(seen)
    times = [
        *(f"left {left}".split(", ") if left else []),
        f"elapsed {format_duration(seen.elapsed)}" if seen.elapsed is not None else "",
        f"cost {cost}" if cost else "",
    ]
    for place, text in enumerate(flow(times, width)):
        yield Ranked(3 + 3 * place, (Span(text),))
    for text in flow([*figures.pace(step).split(", ")], width):
        yield Ranked(7, (Span(text),))
    for mark in [mark for mark in picture.history.marks if mark.kind in URGENT][-2:]:
        yield Ranked(5, (Span(fit(f"! {mark.text}", width), "warning"),))


def _bar(text: str, step: object, width: int) -> str:
    of = step if isinstance(step, dict) else {}
    done, total = figures.number(of.get("step")), figures.number(of.get("total"))
    room = width - len(text) - 2
    if done is None or total is None or total < 1 or room < 8:
        return fit(text, width)
    full = round(room * min(1.0, max(0.0, done / total)))
    return f"{text}  {'█' * full}{'░' * (room - full)}"


def _below(picture: Picture, width: int, height: int) -> Iterator[Ranked]:
    """The machine, checkpoints, and the end of the log."""
    status = picture.seen.status
    if status is not None and not status.finished:
        gpus = [f"GPU {index} {text}" for index, text in figures.gpus(status)]
        for place, row in enumerate(_gpu_rows(gpus, width, max(1, height // 4))):
            yield Ranked(6 if place == 0 else 9, row)
        machine = [
            ("RAM", figures.memory(status)),
            ("CPUs", figures.processors(status)),
            ("disk", figures.disk(status)),
        ]
        for text in flow([f"{name} {value}" for name, value in machine if value], width):
            yield Ranked(8, (Span(text),))
    if text := _checkpoints(picture):
        yield Ranked(8, (Span(fit(text, width)),))
    lines = picture.log[-max(1, height // 5) :]
    for behind, line in zip(reversed(range(len(lines))), lines, strict=True):
        yield Ranked(9 + behind if behind else 5, (Span(fit(line, width), "dim"),))


def _gpu_rows(gpus: list[str], width: int, most: int) -> Iterator[Row]:
    """As many GPUs in a row as there is room for; what is too much for ``most`` rows is counted."""
    each = max(1, width // GPU)
    shown = gpus if len(gpus) <= each * most else gpus[: max(1, each * most - 1)]
    cells = [*shown, *([f"… and {len(gpus) - len(shown)} more GPUs"] if len(shown) < len(gpus) else [])]
    for start in range(0, len(cells), each):
        columns = [[(Span(fit(cell, GPU - 3 if each > 1 else width)),)] for cell in cells[start : start + each]]
        yield beside(columns, [GPU - 3] * len(columns), "   ")[0]


def _checkpoints(picture: Picture) -> str:
    """``checkpoints: 3, the newest step-000034; home: step-000020``"""
    names = list(dict.fromkeys(mark.text for mark in picture.history.marks if mark.kind == "checkpoint"))
    if not names and not picture.home:
        return ""
    there = f"checkpoints: {len(names)}, the newest {names[-1]}" if names else "checkpoints"
    return f"{there}; home: {picture.home[-1]}" if picture.home else f"{there}; none is home"


def _plots(picture: Picture, width: int, height: int) -> list[Row]:
    """The curves in a grid over the same steps; empty where there is no curve or no room."""
    if height < 2 or width <= 12:
        return []
    beside_each_other = min(4, max(1, width // (NARROWEST + 3)))
    series = picture.series(beside_each_other * max(1, height // (LOWEST + 2)))
    if not series:
        return []
    known = [sketch for _, sketch in series if sketch.pieces]
    first, last = min(sketch.pieces[0].step for sketch in known), max(sketch.last_step for sketch in known)
    columns = min(beside_each_other, len(series))
    rows = -(-len(series) // columns)
    each, tall = (width - 3 * (columns - 1)) // columns, min(18, height // rows)
    found: list[Row] = []
    for start in range(0, len(series), columns):
        drawn = [
            [(Span(fit(title, each), "title"),), *((Span(line),) for line in plot(sketch, each, tall - 1, first, last))]
            for title, sketch in series[start : start + columns]
        ]
        found += beside(drawn, [each] * len(drawn), "   ")
    if len(found) < height:
        found.append((Span(fit(f"{'':8}steps {first:,} to {last:,}", width), "dim"),))
    return found
