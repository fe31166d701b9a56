"""Locks of files on this machine: one gpurun at a time changes a file, and none waits for ever for one that was stopped (Ctrl-Z).

A process that has waited ``PATIENCE`` seconds for one lock takes it over: it removes the lock file and makes a new one. The
former holder notices that before it replaces the file (``is_lost``), and makes its change again on what the other wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PATIENCE = 10.0  # seconds; a change takes milliseconds
_LOOK_EVERY = 0.02  # seconds
_held: dict[tuple[int, Path], IO[str]] = {}  # by thread and file


@contextlib.contextmanager
def held(file: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the lock of ``file``, waiting for it. The lock is a file beside it, since the file itself is replaced. Raises OSError."""
    lock = _wait_for(lock_of(file), patience)
    key = (threading.get_ident(), file)
    _held[key] = lock
    try:
        yield
    finally:
        del _held[key]
        lock.close()


@contextlib.contextmanager
def held_if_free(file: Path) -> Iterator[bool]:
    """The same without waiting: gives False at once when another gpurun on this machine holds the lock. Raises OSError."""
    with _open(lock_of(file)) as lock:
        yield _take(lock, lock_of(file))


def is_lost(file: Path) -> bool:
    """Whether this thread holds the lock of ``file``, and another gpurun took it over meanwhile."""
    lock = _held.get((threading.get_ident(), file))
    return lock is not None and not _is_current(lock, lock_of(file))


def lock_of(file: Path) -> Path:
    """The lock file of ``file``."""
    return file.with_name(f".{file.name}.lock")


def _open(path: Path) -> IO[str]:
    return open(path, "a", encoding="ascii")


def _wait_for(path: Path, patience: float) -> IO[str]:
    waited_for, since = -1, 0.0
    while True:
        lock = _open(path)
        if _take(lock, path):
            return lock
        inode = os.fstat(lock.fileno()).st_ino
        if inode != waited_for:
            waited_for, since = inode, time.monotonic()
        elif time.monotonic() - since > patience:
            _remove(path, inode)
        lock.close()
        time.sleep(_LOOK_EVERY)


def _take(lock: IO[str], path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return _is_current(lock, path)


def _is_current(lock: IO[str], path: Path) -> bool:
    """Whether ``lock`` is still the file under its name: another process may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _remove(path: Path, inode: int) -> None:
    """Removes the lock file that was waited for, unless another process was faster."""
    with held_if_free(path) as alone, contextlib.suppress(FileNotFoundError):
        if alone and os.stat(path).st_ino == inode:
            os.unlink(path)
