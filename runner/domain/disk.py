"""Writing on this machine's own disk: what goes wrong there is called that, and never taken for the box's or the link's fault."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from runner.domain.errors import DiskTrouble

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the block writes lies at ``path``. Raises DiskTrouble for whatever the system refuses there, but for FileExistsError."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise trouble(error, path) from None


def trouble(error: OSError, path: Path | None = None) -> DiskTrouble:
    """The error for a file of this machine that could not be written; ``path`` where the system does not name it."""
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    meaning = "What runs on the box goes on running; files here are as they were."
    if error.errno in FULL:
        return DiskTrouble(
            f"the disk of this machine is full: {named or 'a file'} cannot be written{_free(named)} ({error.strerror})",
            meaning=meaning,
            hint="Free some space and repeat the command; GPURUN_HOME keeps gpurun's own files on another disk.",
        )
    return DiskTrouble(
        f"{named or 'a file'} cannot be written on this machine: {error.strerror or error}",
        meaning=meaning,
        hint="Mend its permissions, or set GPURUN_HOME to a folder that can be written.",
    )


def _free(path: Path | None) -> str:
    """The space that is left where ``path`` would lie."""
    for folder in path.parents if path else ():
        with contextlib.suppress(OSError):
            return f", {shutil.disk_usage(folder).free / 1e6:.1f} MB are free in {folder}"
    return ""
