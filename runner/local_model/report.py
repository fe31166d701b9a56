"""What a smoke test found out about one model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.local_model.compare import Comparison


@dataclass(frozen=True)
class SmokeReport:
    """One model on this machine. ``comparison`` is None where the box sent no predictions; sizes in bytes, times in seconds."""

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

    @property
    def passed(self) -> bool:
        """Loaded, answered, and said what the box had said, as far as that is known."""
        return self.comparison is None or not self.comparison.problems

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "passed": self.passed}


def count_labels(counts: list[int] | None, labels: tuple[str, ...]) -> dict[str, int] | None:
    """How many of each class, by its name where the names fit; classes that never came up are left out of long lists."""
    if counts is None:
        return None
    names = labels if len(labels) == len(counts) else tuple(str(index) for index in range(len(counts)))
    return {name: count for name, count in zip(names, counts, strict=True) if count or len(counts) <= 12}
