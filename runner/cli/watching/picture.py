"""What is drawn of one run: what is known of it, and its curves in the order of what is looked at first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from runner.cli.watching.sketch import Sketch
from runner.domain.history import Curve, History
from runner.workflow.observing.status import Seen

MOST = 16  # curves that are drawn of one run
NAMES = {
    "lr": "learning rate",
    "tokens_per_second": "tokens/s",
    "grad_norm": "gradient norm",
    "mfu": "MFU",
}
IN_WORDS = ("loss", "epoch", "ms", "memory")  # drawn first, or told in words
FIRST = ("lr", "tokens_per_second", "mfu", "grad_norm")  # behind the loss and the evaluations


@dataclass
class Picture:
    """One run. ``trouble`` says why what is shown is not of now. ``log``: its last lines, cleaned; ``home``: the checkpoints on this
    machine, the newest last."""

    seen: Seen
    history: History
    log: list[str] = field(default_factory=list)
    home: tuple[str, ...] = ()
    trouble: str = ""
    metric: str = "loss"  # which chooses the model: its curve comes first of the evaluations
    _sketches: dict[str, Sketch] = field(default_factory=dict)

    def series(self, most: int) -> list[tuple[str, Sketch]]:
        """The first curves that have a number, each with its title: its name and newest value."""
        found: list[tuple[str, Sketch]] = []
        for name, curve in self._curves():
            if len(found) >= min(most, MOST):
                break
            sketch = self._sketches.setdefault(name, Sketch())
            sketch.update(curve)
            value = _newest(sketch, curve)
            if value is not None:
                found.append((f"{name} {value:.4g}", sketch))
        return found

    def _curves(self) -> Iterator[tuple[str, Curve]]:
        told = self.history
        if "loss" in told.training:
            yield "loss", told.training["loss"]
        chosen = [each for each in told.all_evaluations if each[1] == self.metric]
        others = [each for each in told.all_evaluations if each[1] != self.metric]
        for number, (of, metric, curve) in enumerate([*chosen, *others]):
            if number < 4:
                yield f"{of} {metric}", curve
        for name in FIRST:
            if name in told.training:
                yield NAMES[name], told.training[name]
        for index, gpu in told.gpus.items():
            if "utilisation" in gpu and (not self._gpus or index in self._gpus):
                yield f"GPU {index} %", gpu["utilisation"]
                break
        for name, curve in told.training.items():
            if name not in (*IN_WORDS, *FIRST):
                yield name, curve

    @property
    def _gpus(self) -> tuple[int, ...]:
        return self.seen.status.gpus if self.seen.status else ()


def _newest(sketch: Sketch, curve: Curve) -> float | None:
    """The newest number; a curve of gaps alone is not looked through."""
    return curve.last if any(not math.isnan(piece.low) for piece in sketch.pieces) else None
