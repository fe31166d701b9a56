"""Whether the disk here can hold the names that a run's files have on their box. Their paths are longer here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from runner.domain.errors import ArtifactError
from runner.domain.terminal import clean
from runner.workflow.fetching.staging import STAGING

ROOM = (
    len(f"/{STAGING}/outputs") + 16
)  # bytes by which a path is longer while rsync writes the file in the staging folder


def refuse_long_names(target: Path, paths: Iterable[str]) -> None:
    """Raises ArtifactError naming the first of ``paths`` that cannot be fetched into ``target``: the path or a name in it is too long."""
    limits = {what: _limit(target, what) for what in ("PC_NAME_MAX", "PC_PATH_MAX")}
    for path in paths:
        whole = os.fsencode(target / path)
        longest_name = max(map(len, whole.split(b"/")))
        for what, length in (("PC_NAME_MAX", longest_name), ("PC_PATH_MAX", len(whole) + ROOM)):
            if length > limits[what]:
                raise ArtifactError(
                    f"{clean(path, 80)} cannot be fetched into {target}: {length} bytes are too long for "
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
