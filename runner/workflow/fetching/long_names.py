"""Whether the disk here can hold the names that a run's files have on their box. Their paths are longer here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from runner.domain.errors import ArtifactError

TEMPORARY = 16  # bytes that rsync adds to the name of a file it is writing


def refuse_long_names(folder: Path, paths: Iterable[str]) -> None:
    """Raises ArtifactError naming the first of ``paths`` that cannot lie in ``folder``: the path or a name in it is too long."""
    limits = {what: _limit(folder, what) for what in ("PC_NAME_MAX", "PC_PATH_MAX")}
    for path in paths:
        whole = os.fsencode(folder / path)
        longest_name = max(map(len, whole.split(b"/")))
        for what, length in (("PC_NAME_MAX", longest_name), ("PC_PATH_MAX", len(whole) + TEMPORARY)):
            if length > limits[what]:
                raise ArtifactError(
                    f"{path[:80]}{'…' * (len(path) > 80)} cannot be fetched into {folder}: {length} bytes are too long for "
                    f"a {'name' if what == 'PC_NAME_MAX' else 'path'} on this disk, which allows {limits[what]}",
                    meaning="Nothing was fetched; what was fetched before is as it was.",
                    hint="Fetch into a folder with a shorter path, or on another disk: gpurun fetch --into DIR",
                )


def _limit(folder: Path, what: str) -> int:
    """The disk's limit in bytes where ``folder`` is or will be."""
    for there in (folder, *folder.parents):
        try:
            limit = os.pathconf(there, what)
        except OSError:  # not there yet, or itself too long
            continue
        return limit if limit > 0 else sys.maxsize
    return sys.maxsize
