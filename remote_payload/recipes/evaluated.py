"""What an evaluation found, as ``evaluation.json`` has it. The laptop reads the same types, so this module needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
SUMMARY = "evaluation.json"


@dataclass(frozen=True)
class Confusion:
    """How often a text of each class (row) was taken for each class (column)."""

    labels: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class Column:
    """What was measured of one model asked in one way.

    ``model`` is the name of the TARGET, ``base`` true for the base model of that adapter, ``asking`` the cell of the grid. ``rows`` is
    the file with each example, relative to the summary. ``metrics`` are over all examples, ``sets`` over those of each set.
    """

    name: str
    model: str
    base: bool
    asking: str
    kind: str
    device: str
    dtype: str
    rows: str
    metrics: dict[str, float]
    sets: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: Confusion | None = None


@dataclass(frozen=True)
class Evaluation:
    """All columns, on the same ``examples`` examples of ``data``, whose sha256 is over all of its files."""

    data: str
    sha256: str
    examples: int
    columns: list[Column]
    settings: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The document."""
        return {"format": FORMAT, **asdict(self)}
