"""The checkpoints that a run has on its box: the complete ones, and those of a program of the user's own that are being written."""

from __future__ import annotations

from dataclasses import dataclass

from runner.domain.answers.manifest import output_path
from runner.domain.answers.reading import Fields, list_of, optional, otherwise, text, time_in_seconds, whole
from runner.domain.answers.verbs import MAX_LISTED, Kept, read_checkpoints


@dataclass(frozen=True)
class Unfinished:
    """A checkpoint that is not complete, and ``why``; ``at`` is when it was last written to, by the box's clock."""

    path: str
    step: int | None
    size: int
    at: float | None
    why: str


@dataclass(frozen=True)
class Listed:
    """All checkpoints of a run: ``complete`` by name, oldest first, the finished model last. ``now`` is the box's time of the answer."""

    complete: dict[str, Kept]
    unfinished: tuple[Unfinished, ...]
    now: float


def read_listed(answer: Fields) -> Listed:
    """Raises Impossible naming a wrong field."""
    unfinished = answer("unfinished", optional(list_of(_unfinished, MAX_LISTED)))
    return Listed(read_checkpoints(answer), unfinished or (), answer("now", otherwise(0.0, time_in_seconds)))


def _unfinished(value: object) -> Unfinished:
    fields = Fields(value)
    return Unfinished(
        path=fields("path", output_path),
        step=fields("step", optional(whole)),
        size=fields("size", whole),
        at=fields("at", optional(time_in_seconds)),
        why=fields("why", text),
    )
