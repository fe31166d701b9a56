"""Files and folders that appear under their name when they are complete, never before; small files read within a bound; sizes of trees."""

import json
import os
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Set

MAX_JSON_FILE = 64 * 1024 * 1024


def write_json(path: str, value: Any) -> None:
    """Writes ``value`` as JSON, as ``write_whole`` does."""
    write_whole(path, json.dumps(value, separators=(",", ":"), sort_keys=True).encode("ascii"))


def write_whole(path: str, content: bytes) -> None:
    """Writes ``content`` under a temporary name beside ``path`` (mode 0600), fsyncs and renames: a reader sees the old file or the new one.

    An empty folder of that name is replaced too. Raises OSError; ``path`` is then as it was.
    """
    temporary = _temporary(path, "tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        remove_empty_folder(path)
        os.rename(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise


def write_new(path: str, content: bytes) -> None:
    """Writes ``content`` under ``path`` as a whole, unless something has that name. Raises FileExistsError then, else OSError."""
    temporary = _temporary(path, "tmp")
    write_whole(temporary, content)
    try:
        os.link(temporary, path)
    finally:
        remove_quietly(temporary)


@contextmanager
def new_folder(path: str) -> Iterator[str]:
    """A folder to fill under a temporary name beside ``path``, renamed at the end of the block and removed where the block fails.

    Raises OSError.
    """
    temporary = _temporary(path, "partial")
    try:
        os.makedirs(temporary)
        yield temporary
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _temporary(path: str, kind: str) -> str:
    """A name that no other process and no other thread of this one uses."""
    return "%s.%s-%d-%d" % (path, kind, os.getpid(), threading.get_ident())


def remove_empty_folder(path: str) -> None:
    """Removes a folder where a file should be. Raises OSError where it holds something."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)


def read_json(path: str) -> Optional[Dict[str, Any]]:
    """The JSON object in ``path``; None where the file is missing, too large, or anything else."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_JSON_FILE + 1)
        value = json.loads(raw.decode("utf-8")) if len(raw) <= MAX_JSON_FILE else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def disk_usage(path: str) -> int:
    """Bytes that ``path`` takes on the disk; a file that is linked from several places counts once, and fully."""
    seen: Set[int] = set()
    total = 0
    waiting = [path]
    while waiting:
        current = waiting.pop()
        try:
            found = os.lstat(current)
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_blocks * 512
            if os.path.isdir(current) and not os.path.islink(current):
                waiting += [os.path.join(current, name) for name in os.listdir(current)]
        except OSError:
            continue
    return total


def remove_quietly(path: str) -> None:
    """Unlinks ``path`` if it can be; for leftovers only."""
    try:
        os.unlink(path)
    except OSError:
        pass


def disk_clock(folder: str) -> float:
    """The time by the clock of the folder's disk, which for a network volume is its server's. This machine's clock where it has no room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_ctime
    except OSError:
        return time.time()
