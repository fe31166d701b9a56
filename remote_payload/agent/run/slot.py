"""The exit slot on disk: allocated before the payload starts and rewritten in place, so that an exit code survives a full disk.

In between it records that the payload was started, which no other file shows for certain once ``owner.json`` is removed.
"""

import os
from typing import Optional

from remote_payload.agent.box.files import remove_empty_folder, write_whole
from remote_payload.agent.box.locks import make_volatile
from remote_payload.agent.wire.paths import RunPaths, volatile_folder
from remote_payload.agent.wire.protocol import SLOT_SIZE, ExitRecord, decode_slot, empty_slot, encode_slot

STARTED = b"GR1 started".ljust(SLOT_SIZE - 1) + b"\n"  # not an exit record: it has no checksum


def allocate(run: RunPaths) -> int:
    """Writes the empty slot and syncs it; its descriptor, to be kept open. Raises OSError."""
    descriptor = os.open(run.exit_slot, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.pwrite(descriptor, empty_slot(), 0)
    os.fsync(descriptor)
    return descriptor


def reopen(run: RunPaths) -> int:
    """The slot of a run that starts again, without an exit record; its descriptor, to be kept open. Raises OSError."""
    return os.open(run.exit_slot, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def mark_started(descriptor: int) -> None:
    """Records that the payload is about to execute. A disk that refuses the write is no reason not to start."""
    try:
        os.pwrite(descriptor, STARTED, 0)
    except OSError:
        pass


def was_started(run: RunPaths) -> bool:
    """Whether the slot records that the payload was started."""
    return _raw(run.exit_slot) == STARTED or read(run) is not None


def is_empty(run: RunPaths) -> bool:
    """Whether the slot is as ``allocate`` wrote it: the payload was not started."""
    return _raw(run.exit_slot) == empty_slot()


def write(run: RunPaths, record: ExitRecord, descriptor: Optional[int] = None) -> None:
    """Records how the payload ended, even if the slot was damaged or removed meanwhile.

    Where the disk refuses the write (a full copy-on-write filesystem), the record is kept in memory.
    """
    raw = encode_slot(record)
    try:
        if descriptor is not None:
            os.pwrite(descriptor, raw, 0)
            os.fsync(descriptor)
        if _read(run.exit_slot) != decode_slot(raw):  # no descriptor, or it is of a file that was removed
            remove_empty_folder(run.exit_slot)
            target = os.open(run.exit_slot, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.pwrite(target, raw, 0)
            os.fsync(target)
            os.close(target)
    except OSError:
        if not os.path.isdir(run.folder):
            return  # the whole run was removed
        make_volatile(run.run_id)
        write_whole(_copy(run), raw)


def read(run: RunPaths) -> Optional[ExitRecord]:
    """How the payload ended, None while there is no record."""
    return _read(run.exit_slot) or _read(_copy(run))


def _copy(run: RunPaths) -> str:
    return os.path.join(volatile_folder(run.run_id), "exit")


def _read(path: str) -> Optional[ExitRecord]:
    raw = _raw(path)
    return None if raw is None else decode_slot(raw)


def _raw(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as file:
            return file.read(SLOT_SIZE)
    except OSError:
        return None
