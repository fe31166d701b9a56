"""Small files written so that a reader sees the old or the new one, never half of it, and read within a bound."""

import json
import os
from typing import Any, Dict, Optional

MAX_JSON_FILE = 64 * 1024 * 1024


def write_json(path: str, value: Any, mode: int = 0o600) -> None:
    """Writes ``value`` under a temporary name beside ``path``, fsyncs and renames.

    Raises OSError; ``path`` is then as it was.
    """
    temporary = "%s.tmp-%d" % (path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, separators=(",", ":"), sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise


def read_json(path: str) -> Optional[Dict[str, Any]]:
    """The JSON object in ``path``; None when there is none, or it is torn, too big or something else."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_JSON_FILE + 1)
        value = json.loads(raw.decode("utf-8")) if len(raw) <= MAX_JSON_FILE else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def remove_quietly(path: str) -> None:
    """Unlinks ``path`` if it can be; for leftovers only."""
    try:
        os.unlink(path)
    except OSError:
        pass
