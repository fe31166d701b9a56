"""What a page is made of: sections of facts, tables, texts and charts. All texts are plain: ``html.py`` escapes each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad", "warn"]


@dataclass(frozen=True)
class Facts:
    """Names and their values; a value may have several lines. Those without a value are not shown."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """``marked`` are the cells (row, column) that stand out as the best, ``about`` a line below the table."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[tuple[int, int]] = frozenset()
    about: str = ""


@dataclass(frozen=True)
class Note:
    """A paragraph; its tone is a colour and a border."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Text:
    """Lines that are shown as they are, in letters of equal width."""

    text: str


@dataclass(frozen=True)
class Series:
    """A line of a chart: ``values[i]`` at ``steps[i]``, and at ``seconds[i]`` since the start; NaN is a gap.

    ``colour`` is a number: equal numbers have the same colour. ``low`` and ``high`` are the borders of a band around the line; a
    ``faint`` line stands behind the others and has no legend.
    """

    label: str
    steps: Sequence[float]
    seconds: Sequence[float]
    values: Sequence[float]
    colour: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """``axis`` is what is drawn to the right: steps, unless the reader chooses time for all, or always time."""

    title: str
    unit: str
    series: Sequence[Series]
    axis: Literal["step", "time"] = "step"


@dataclass(frozen=True)
class Moment:
    """A line across the charts where something happened."""

    seconds: float
    step: int
    kind: str
    text: str


@dataclass(frozen=True)
class Charts:
    charts: Sequence[Chart]


Block = Facts | Table | Note | Text | Charts


@dataclass(frozen=True)
class Section:
    """A part of the page with its title; not shown where it has no blocks. ``folded``: the reader opens it."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """``about`` is a line below the title; ``moments`` are drawn in every chart."""

    title: str
    about: str
    sections: Sequence[Section]
    moments: Sequence[Moment] = ()
