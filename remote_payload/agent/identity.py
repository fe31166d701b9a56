"""The identity of a box: a random number that lies in its root. The same box at another address has the same."""

import os

from remote_payload.agent.box import files
from remote_payload.agent.wire.paths import IDENTITY, BoxPaths


def identity(paths: BoxPaths) -> str:
    """32 hex digits, made when they are first asked for; "" where the disk does not keep them.

    The number is kept with the runs and lost with them: a box whose disk was emptied is another one.
    """
    found = _read(paths.identity)
    if not found:
        try:
            os.makedirs(paths.root, exist_ok=True)
            files.write_new(paths.identity, os.urandom(16).hex().encode("ascii"))
        except OSError:  # a full or read-only disk; or another agent was quicker
            pass
        found = _read(paths.identity)
    return found


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            found = file.read(64).decode("ascii", "replace")
    except OSError:
        return ""
    return found if IDENTITY.fullmatch(found) else ""
