"""The exit slot on disk: allocated while there is room, rewritten in place, so that an exit code survives a full disk."""

import os
from typing import Optional

from remote_payload.agent.paths import RunPaths, volatile_folder
from remote_payload.agent.protocol import SLOT_SIZE, ExitRecord, decode_slot, empty_slot, encode_slot


def allocate(run: RunPaths) -> int:
    """Writes the empty slot and syncs it; its descriptor, to be kept open. Raises OSError."""
    descriptor = os.open(run.exit_slot, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.pwrite(descriptor, empty_slot(), 0)
    os.fsync(descriptor)
    return descriptor


def write(run: RunPaths, record: ExitRecord, descriptor: Optional[int] = None) -> None:
    """Says how the payload ended. Where the disk takes not even that (copy-on-write and full), a copy in memory does."""
    raw = encode_slot(record)
    try:
        target = os.open(run.exit_slot, os.O_RDWR | os.O_CLOEXEC) if descriptor is None else descriptor
        os.pwrite(target, raw, 0)
        os.fsync(target)
        if descriptor is None:
            os.close(target)
    except OSError:
        with open(_copy(run), "wb") as file:
            file.write(raw)


def read(run: RunPaths) -> Optional[ExitRecord]:
    """How the payload ended, None while nobody has said so."""
    return _read(run.exit_slot) or _read(_copy(run))


def _copy(run: RunPaths) -> str:
    return os.path.join(volatile_folder(run.run_id), "exit")


def _read(path: str) -> Optional[ExitRecord]:
    try:
        with open(path, "rb") as file:
            return decode_slot(file.read(SLOT_SIZE))
    except OSError:
        return None
