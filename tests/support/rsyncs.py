"""The rsyncs that a laptop or a box may have: this machine's own, and those of Macs where a folder holds them.

``GPURUN_TEST_RSYNCS`` names the folder, with programs called ``apple…`` (Apple's openrsync) and ``samba-2.6.9…``. The tests of one that is
not there are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "GPURUN_TEST_RSYNCS"
OWN = "own"  # what `rsync` is on this machine
KINDS = (OWN, "apple", "samba-2.6.9")


def program(kind: str) -> Path | None:
    """The program of that kind, if there is one."""
    folder = os.environ.get(VARIABLE)
    return next(iter(sorted(Path(folder).glob(f"{kind}*"))), None) if folder and kind != OWN else None


def available() -> list[str]:
    """The kinds that can be run here."""
    return [kind for kind in KINDS if kind == OWN or program(kind)]


def params(*combinations: tuple[str, ...]) -> list[object]:
    """Parameters of a test for these combinations; those with an rsync that is not here are skipped."""
    found = []
    for kinds in combinations:
        lacking = [kind for kind in kinds if kind not in available()]
        why = f"{VARIABLE} names no folder with {' and '.join(f'{kind}*' for kind in lacking)}"
        found.append(pytest.param(kinds, id="-".join(kinds), marks=[pytest.mark.skip(why)] if lacking else []))
    return found


def path_with(kind: str, folder: Path) -> str:
    """A PATH on which ``rsync`` is of that kind; ``folder`` is made to hold it."""
    found = program(kind)
    if found is None:
        return os.environ["PATH"]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rsync").exists():
        (folder / "rsync").symlink_to(found)
    return f"{folder}:{os.environ['PATH']}"
