"""Trees on the box that a push may take unchanged files from, and which files are not safe to take."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass

from runner.push.digest import AMBIGUOUS
from runner.push.selection import Entry


@dataclass(frozen=True)
class Base:
    """A tree that this machine read between ``since`` and ``until`` (its own clock, seconds).

    A file edited then may have been edited again within the same second, so that its size and time say nothing.
    """

    path: str
    since: float
    until: float

    @classmethod
    def completed(cls, path: str, read_at: int | None) -> Base:
        """A complete tree, read at ``read_at``. Where that was not noted, size and time are trusted."""
        when = math.inf if read_at is None else float(read_at)
        return cls(path, when, when)

    @classmethod
    def attempt(cls, path: str) -> Base:
        """An attempt that did not finish, or whose files changed meanwhile. Its name tells when it began; when it ended is not known."""
        return cls(path, float(path.rpartition("/")[2].partition("-")[0]), math.inf)

    def may_differ(self, entry: Entry) -> bool:
        """Whether the entry's size and time do not prove that this tree has the same content."""
        return self.since - AMBIGUOUS <= entry.mtime_ns / 1e9 <= self.until + AMBIGUOUS


def new_attempt(name: str) -> str:
    """``<name>/<attempt>``: a new name for a folder below ``incoming/`` that no other push writes to."""
    return f"{name}/{int(time.time())}-{secrets.token_hex(4)}"
