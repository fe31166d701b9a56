"""The code of runs, from the copies that are kept of it on this machine: its files, and the unified diff of two of them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from runner.domain.comparison.trees import File, FileRow
from runner.push.selection import Selection
from runner.workflow.fetching.verify import sha256

LARGEST = 1 << 20  # bytes of a file whose lines are compared


def files_of(kept: Selection, read: dict[tuple[int, int], str]) -> dict[str, File]:
    """Each file of the copy by its path. ``read`` remembers the contents of files that several copies share. Raises OSError."""
    return {
        entry.path: File(entry.size, _content(kept, entry.path, entry.kind, entry.target, read), entry.mode)
        for entry in kept.files
    }


def _content(kept: Selection, path: str, kind: str, target: str, read: dict[tuple[int, int], str]) -> str:
    if kind == "link":
        return f"link to {target}"
    about = os.lstat(kept.root / path)
    known = about.st_dev, about.st_ino
    if known not in read:
        read[known] = sha256(kept.root / path, about.st_size)
    return read[known]


def diff(first: Path, second: Path, changed: Sequence[FileRow]) -> Iterator[str]:
    """The lines of the unified diff between two folders, of these files of theirs; one line for a file that is no text."""
    for row in changed:
        before, after = (
            _lines(folder / row.path, file) for folder, file in zip((first, second), row.files, strict=True)
        )
        if before is None or after is None:
            yield f"{row.path} is no text, or too large: its lines are not compared"
            continue
        one, two = (f"{side}/{row.path}" if file else "/dev/null" for side, file in zip("ab", row.files, strict=True))
        yield from (line.rstrip("\n") for line in difflib.unified_diff(before, after, one, two))


def _lines(path: Path, file: File | None) -> list[str] | None:
    """The lines of a text file; none of a file that is not there, None for one that is no text."""
    if file is None:
        return []
    if path.is_symlink():
        return [f"{file.content}\n"]
    try:
        data = path.read_bytes() if file.size <= LARGEST else b"\0"
        return None if b"\0" in data else data.decode("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        return None
