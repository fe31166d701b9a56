"""Where pushes arrive: ``incoming/<run id or data key>/<attempt>``.

Every rsync, tar stream or patch writes to a new attempt of its own. A push that was suspended and continues later
therefore never writes to a tree that another push has completed: a new attempt takes equal files of an earlier one as hard links, and rsync
and tar write a changed file beside the old one and rename it.
"""

import os
import shutil
from typing import List, Optional, Tuple

from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import ATTEMPT, KEY, BoxPaths

KEPT = 5  # earlier attempts that a new one may take files from; more are removed


def split(written: Optional[str]) -> Tuple[str, str]:
    """``<name>/<attempt>`` in its two parts. Raises AgentError for anything else."""
    name, _, attempt = (written or "").partition("/")
    if not KEY.fullmatch(name) or not ATTEMPT.fullmatch(attempt):
        raise AgentError("TransferFailed", "unusable name for a push: %.100r" % (written,))
    return name, attempt


def place(paths: BoxPaths, written: Optional[str]) -> str:
    """The folder of ``<name>/<attempt>``."""
    return paths.incoming("/".join(split(written)))


def make_room(paths: BoxPaths, name: str) -> None:
    """Makes the folder for attempts of ``name``, since old versions of rsync make no parents, and removes all but the newest attempts."""
    os.makedirs(paths.incoming(name), 0o700, exist_ok=True)
    for attempt in _attempts(paths, name)[KEPT:]:
        shutil.rmtree(paths.incoming(name + "/" + attempt), ignore_errors=True)


def earlier(paths: BoxPaths, name: str) -> List[str]:
    """The attempts that a new one may take files from, the newest first."""
    return _attempts(paths, name)[:KEPT]


def forget(paths: BoxPaths, name: str) -> None:
    """Removes every attempt, once one was moved to its final place. A push that still writes to another one fails."""
    shutil.rmtree(paths.incoming(name), ignore_errors=True)


def _attempts(paths: BoxPaths, name: str) -> List[str]:
    try:
        found = [attempt for attempt in os.listdir(paths.incoming(name)) if ATTEMPT.fullmatch(attempt)]
    except OSError:
        return []
    return sorted(found, key=lambda attempt: (int(attempt.partition("-")[0]), attempt), reverse=True)
