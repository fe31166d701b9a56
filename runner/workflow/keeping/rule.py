"""Which checkpoints ``gpurun keep`` brings home and lets stay there: ``all``, ``latest:2``, ``latest:1,best``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner.domain.answers.verbs import Kept
from runner.domain.errors import UserError

BEST = "best"  # the name of the finished model among the checkpoints
LOSSES = ("loss", "eval_loss")  # metrics of which less is better
_LATEST = re.compile(r"latest:([1-9][0-9]{0,3})")


@dataclass(frozen=True)
class Rule:
    """``latest``: how many of the newest checkpoints stay, None for all of them. ``best``: the best one stays too."""

    latest: int | None = None
    best: bool = False

    def __str__(self) -> str:
        return "all" if self.latest is None else f"latest:{self.latest}" + (",best" if self.best else "")

    @property
    def is_all(self) -> bool:
        return self.latest is None

    def wanted(self, found: Iterable[Kept]) -> set[str]:
        """The paths of those that are to be home. The newest is always one of them."""
        ordered = newest_first(found)
        stay = {each.path for each in ordered[: self.latest]}
        best = best_of(ordered) if self.best else None
        return stay | ({best.path} if best else set())


def parse_rule(written: str) -> Rule:
    """The rule in ``latest:N``, ``latest:N,best`` or ``all``. Raises UserError for anything else."""
    parts = [part.strip() for part in written.split(",")]
    if parts == ["all"]:
        return Rule()
    latest = [int(match[1]) for part in parts if (match := _LATEST.fullmatch(part))]
    others = [part for part in parts if not _LATEST.fullmatch(part)]
    if len(latest) != 1 or others not in ([], [BEST]):
        raise UserError(
            f"--checkpoints {written!r} is no rule for checkpoints",
            meaning="Nothing was done.",
            hint="Write latest:N with how many of the newest stay here, latest:N,best where the best one stays too, or all.",
        )
    return Rule(latest[0], bool(others))


def newest_first(found: Iterable[Kept]) -> list[Kept]:
    """The checkpoints without the finished model: by step where all have one, else by the time at which they were complete."""
    checkpoints = [each for each in found if each.name != BEST]
    if all(each.step is not None for each in checkpoints):
        return sorted(checkpoints, key=lambda each: (each.step or 0, each.at or 0.0, each.path), reverse=True)
    return sorted(checkpoints, key=lambda each: (each.at or 0.0, each.path), reverse=True)


def best_of(found: Sequence[Kept]) -> Kept | None:
    """The checkpoint with the smallest loss of its evaluation; None where none was evaluated."""
    scored = [(each.metrics[name], each) for each in found for name in LOSSES if name in each.metrics]
    return min(scored, key=lambda pair: pair[0])[1] if scored else None
