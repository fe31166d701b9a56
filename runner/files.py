"""Files of gpurun's own on this machine: replaced as a whole, edited under a lock. An error of the disk names the disk and the file.

Its locks are those of ``file_locks.py``, which only this module uses.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from runner import file_locks
from runner.domain.answers.reading import Impossible, shown
from runner.domain.errors import DiskTrouble, StateError
from runner.domain.quantities import format_size
from runner.domain.terminal import clean

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """The block writes to ``path``. Raises DiskTrouble for whatever the system refuses there, but for FileExistsError."""
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
    """How much space is free where ``path`` would lie."""
    for folder in path.parents if path else ():
        with contextlib.suppress(OSError):
            return f", {format_size(shutil.disk_usage(folder).free)} are free in {folder}"
    return ""


class LockLost(StateError):
    """Another gpurun took over the lock of a file, since this one held it for too long. The file was not replaced."""


@contextlib.contextmanager
def file_lock(file: Path, patience: float = file_locks.PATIENCE) -> Iterator[None]:
    """Holds the lock of a file; who holds it for longer than ``patience`` (seconds) may lose it. The folder is made if missing."""
    with contextlib.ExitStack() as stack:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(file_locks.held(file, patience))
        yield


@contextlib.contextmanager
def file_lock_if_free(file: Path) -> Iterator[bool]:
    """The same without waiting: gives False at once when another gpurun on this machine holds the lock. The folder must be there."""
    with contextlib.ExitStack() as stack:
        with writing(file):
            alone = stack.enter_context(file_locks.held_if_free(file))
        yield alone


def change(file: Path, work: Callable[[], None]) -> None:
    """Calls ``work``, which reads ``file`` and replaces it, while the lock is held; again where the lock was lost meanwhile."""
    while True:
        try:
            with file_lock(file):
                return work()
        except LockLost:
            continue


def write_text(file: Path, text: str) -> None:
    """Replaces a file as a whole, durably: written beside it, fsynced, renamed. A reader sees the old one or the new one."""
    with _replacement(file) as target:
        target.write(text)


def write_json(file: Path, value: object, scratch: Path | None = None) -> None:
    """The same for a JSON file. Raises TypeError for what JSON cannot hold; the old file stays.

    ``scratch`` is a folder on the same disk for the unfinished file, which stays there if this process is killed.
    """
    with _replacement(file, scratch) as target:
        json.dump(value, target, indent=1)


@contextlib.contextmanager
def _replacement(file: Path, scratch: Path | None = None) -> Iterator[TextIO]:
    """A file in ``scratch`` (by default beside ``file``) that takes its place when the block ends well, and is removed otherwise."""
    unfinished = (scratch or file.parent) / f".{file.name}.{os.getpid()}.{threading.get_ident():x}"
    with writing(file):
        for folder in (file.parent, unfinished.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(unfinished, "w", encoding="utf-8") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
            if file_locks.is_lost(file):
                raise LockLost(
                    f"{file}: another gpurun changed it while this one was stopped", hint="Repeat the command."
                )
            os.replace(unfinished, file)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise


def update_json(file: Path, edit: Callable[[dict[str, object]], None]) -> None:
    """Lets ``edit`` change the JSON object in ``file``, and replaces it; one gpurun at a time. Raises as ``load_json`` does."""

    def work() -> None:
        value = load_json(file)
        edit(value)
        write_json(file, value)

    change(file, work)


def read_json(file: Path) -> dict[str, object]:
    """The JSON object in a file that may be lost without harm; empty where it is missing or damaged."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def load_json(file: Path) -> dict[str, object]:
    """The JSON object in a file that is not to be lost; empty where there is none yet. Raises StateError naming a damaged one."""
    try:
        value = parse_json(file) if os.path.lexists(file) else {}
        if not isinstance(value, dict):
            raise Impossible(f"{shown(value)} is not an object")
    except Impossible as error:
        raise damaged(file, error) from None
    return value


def parse_json(file: Path) -> object:
    """What a JSON file holds. Raises Impossible for one that is torn, or cannot be read at all."""
    try:
        value: object = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise Impossible(error.strerror or type(error).__name__) from None
    except (ValueError, RecursionError) as error:
        raise Impossible(f"not JSON: {clean(error, 100)}") from None
    return value


def damaged(file: Path, error: Impossible) -> StateError:
    """The error for a file of gpurun's own that it cannot have written so."""
    return StateError(
        f"{file} is damaged ({error})",
        meaning="Nothing was contacted.",
        hint=f"Mend it, or move it away: mv {shlex.quote(str(file))} {shlex.quote(str(file))}.damaged",
    )
