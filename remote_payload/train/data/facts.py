"""What the record and the model card say about the data: a file that was read, and a side of the data (train, validation, …)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from remote_payload.train.files import sha256_and_size, shown_path

FactRecord = dict[str, str | int | list[str]]  # a file or a side as a JSON object


@dataclass(frozen=True)
class DataFile:
    """A file that was read. ``rows`` is None for plain text, which has none."""

    path: str
    sha256: str
    bytes: int
    rows: int | None = None

    def as_dict(self) -> FactRecord:
        facts: FactRecord = {"path": self.path, "sha256": self.sha256, "bytes": self.bytes}
        return facts if self.rows is None else {**facts, "rows": self.rows}

    def line(self) -> str:
        """The file in words, without where it lies on this machine."""
        size = f"{self.bytes:,} bytes" if self.rows is None else f"{self.rows:,} rows"
        return f"`{shown_path(self.path)}`: {size}, sha256 `{self.sha256[:16]}…`"


@dataclass(frozen=True)
class Side:
    """A side of the data and its counts (rows, tokens, …). ``dropped_places`` are the first records that were dropped, as file:line."""

    name: str
    counts: Mapping[str, int]
    dropped_places: list[str] | None = None  # None where the recipe does not count them

    def as_dict(self) -> FactRecord:
        facts: FactRecord = {"side": self.name, **self.counts}
        return facts if self.dropped_places is None else {**facts, "dropped_places": self.dropped_places}

    def line(self) -> str:
        """The side in words."""
        return f"{self.name}: " + ", ".join(
            f"{count:,} {what.replace('_', ' ')}" for what, count in self.counts.items()
        )


DataFact = DataFile | Side


def describe_file(file: str, rows: int | None = None) -> DataFile:
    """The file's sha256 and size, beside the number of rows that reading it gave."""
    return DataFile(file, *sha256_and_size(Path(file)), rows)


def describe_files(files: Sequence[str]) -> list[DataFile]:
    """``describe_file`` of each, several at a time."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(describe_file, files))
