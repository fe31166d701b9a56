"""Files of runs, side by side: which were added, removed or changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file or link: ``size`` in bytes, ``content`` a digest of what is in it (of a link where it leads), ``mode`` its permissions."""

    size: int
    content: str
    mode: int | None = None


@dataclass(frozen=True)
class FileRow:
    """One path; ``files`` are in the order of the runs, None where a run does not have it."""

    path: str
    files: tuple[File | None, ...]

    @property
    def change(self) -> str:
        """What became of it from the first of two runs to the second: ``added``, ``removed``, ``mode changed`` or ``changed``."""
        before, after = self.files[0], self.files[-1]
        if before is None or after is None:
            return "removed" if after is None else "added"
        return "mode changed" if before.content == after.content else "changed"


def differing_files(trees: Sequence[Mapping[str, File]]) -> tuple[FileRow, ...]:
    """The files that are not the same in all trees (path → file), by path."""
    paths = sorted({path for tree in trees for path in tree})
    found = [FileRow(path, tuple(tree.get(path) for tree in trees)) for path in paths]
    return tuple(row for row in found if len(set(row.files)) > 1)
