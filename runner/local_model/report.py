"""The result of a smoke test of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.local_model.compare import Comparison
from runner.local_model.messages import Labelled


@dataclass(frozen=True)
class SmokeReport:
    """One model on this machine. ``comparison`` is None without predictions of the box; sizes are in bytes, times in seconds."""

    folder: Path
    kind: str
    device: str
    device_name: str
    dtype: str
    torch: str
    load_seconds: float
    samples: int
    samples_per_second: float
    tokens_per_second: float | None
    peak_memory: int
    counts: dict[str, int] | None
    texts: tuple[str, ...]
    comparison: Comparison | None
    not_opened: tuple[str, ...]
    labelled: tuple[Labelled, ...] = ()  # of the user's own texts, in their order

    @property
    def passed(self) -> bool:
        """Whether the model loaded, and predicted what it predicted on the box if that is known."""
        return self.comparison is None or not self.comparison.problems


def count_labels(counts: Sequence[int] | None, labels: tuple[str, ...]) -> dict[str, int] | None:
    """How often each class was chosen, by label if there is one for each; of more than 12 classes those never chosen are omitted."""
    if counts is None:
        return None
    names = labels if len(labels) == len(counts) else tuple(str(index) for index in range(len(counts)))
    return {name: count for name, count in zip(names, counts, strict=True) if count or len(counts) <= 12}
