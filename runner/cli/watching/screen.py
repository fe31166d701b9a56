"""Several runs on one terminal: panels in columns, a line for each run that has no room, and how to leave. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner.cli import figures
from runner.cli.watching.panel import panel
from runner.cli.watching.picture import Picture
from runner.cli.watching.rows import Row, Span, beside, fit
from runner.domain.quantities import pluralise
from runner.workflow.observing.listing import describe, step_of

COLUMN = 38  # cells of a panel, at least
LOWEST = 10  # rows of a panel, at least, where there is more than one row of them
BETWEEN = " │ "


def screen(pictures: Sequence[Picture], width: int, height: int, footer: str) -> list[Row]:
    """At most ``height`` rows of at most ``width`` cells; the last is the footer."""
    room = max(1, height - 1)
    columns = min(len(pictures), max(1, (width + len(BETWEEN)) // (COLUMN + len(BETWEEN))))
    deep = min(-(-len(pictures) // max(1, columns)), max(1, room // LOWEST))
    shown, others = pictures[: columns * deep], pictures[columns * deep :]
    rest = _others(others, width, max(1, room // 3)) if others else []
    found: list[Row] = []
    for place in range(deep):
        part = shown[place * columns : (place + 1) * columns]
        tall = (room - len(rest)) // deep
        each = (width - len(BETWEEN) * (len(part) - 1)) // max(1, len(part))
        found += beside([_exactly(panel(picture, each, tall), tall) for picture in part], [each] * len(part), BETWEEN)
    return [*found, *rest, (Span(fit(footer, width), "dim"),)][-height:]


def _exactly(rows: list[Row], height: int) -> list[Row]:
    return [*rows, *[()] * (height - len(rows))][:height]


def _others(pictures: Sequence[Picture], width: int, most: int) -> list[Row]:
    """A line for each, the last one counts those without one."""
    shown = pictures if len(pictures) <= most else pictures[: most - 1]
    rows: list[Row] = [(Span(fit(_line(picture), width)),) for picture in shown]
    if len(shown) < len(pictures):
        rows.append((Span(fit(f"… and {pluralise(len(pictures) - len(shown), 'more run')}", width), "dim"),))
    return rows


def _line(picture: Picture) -> str:
    run, left = picture.seen.run, figures.left(picture.seen)
    loss = picture.history.training["loss"].last if "loss" in picture.history.training else None
    parts = [
        run.run_id,
        describe(run),
        step_of(run),
        f"loss {loss:.4g}" if loss is not None else "",
        f"left {left}" if left else "",
    ]
    return "  ".join(part for part in parts if part)
