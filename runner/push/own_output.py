"""Files that gpurun's own output is written to by another program (``gpurun submit … 2>&1 | tee submit.log``)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_READ = 1 << 20  # bytes at the end of a file


def receivers(root: Path, changed: Iterable[str], run_id: str) -> set[str]:
    """Those of the ``changed`` files that hold the run's id.

    During a push nothing but gpurun's own output has that id, and each push adds to it.

    A file that is this process's standard output or standard error itself is known by its inode (``selection.py``).
    """
    return {path for path in changed if run_id.encode("ascii") in _end_of(root / path)}


def _end_of(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.lseek(descriptor, max(0, os.fstat(descriptor).st_size - _READ), os.SEEK_SET)
            return os.read(descriptor, _READ)
        finally:
            os.close(descriptor)
    except OSError:  # deleted meanwhile, or a folder
        return b""
