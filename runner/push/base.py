"""Trees on the box that a push may take unchanged files from, and which files it may not."""

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
        """A tree that was seen to be the selected one at ``read_at``; nothing is doubted where that was not written down."""
        when = math.inf if read_at is None else float(read_at)
        return cls(path, when, when)

    @classmethod
    def attempt(cls, path: str) -> Base:
        """What an attempt brought that was cut off, or whose files moved: the beginning is in its name, the end nobody knows."""
        return cls(path, float(path.rpartition("/")[2].partition("-")[0]), math.inf)

    def may_differ(self, entry: Entry) -> bool:
        """Whether the entry's size and time do not prove that this tree has the same content."""
        return self.since - AMBIGUOUS <= entry.mtime_ns / 1e9 <= self.until + AMBIGUOUS


def new_attempt(name: str) -> str:
    """``<name>/<attempt>``: the name of a folder below ``incoming/`` that nobody else writes to."""
    return f"{name}/{int(time.time())}-{secrets.token_hex(4)}"
