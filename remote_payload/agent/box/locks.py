"""Locks: flocks on files in ``$ROOT/locks``. A run's lock is held by its supervisor for as long as that lives.

The kernel frees a lock when its holder dies, however it dies: no pid, clock or heartbeat is trusted, and a file that is still there
after a restart is not locked. The files do not lie in /dev/shm, which systemd empties at a user's last logout. The agent that launches
a run takes its lock and passes it to the supervisor as an open descriptor, so that the lock is never free in between. The payload
never inherits it.
"""

import errno
import fcntl
import os
import stat
import time
from typing import Dict, Optional

from remote_payload.agent.box.files import remove_empty_folder, remove_quietly
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import RunPaths, volatile_folder

# Lustre without "-o flock", NFS without a lock daemon, some FUSE filesystems.
TRY_EVERY = 0.02  # seconds
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_tried: Dict[str, bool] = {}  # whether a folder's filesystem can lock


def make_volatile(run_id: Optional[str] = None) -> str:
    """``/dev/shm/gpurun-<uid>``, or a run's folder in it: made with mode 0700. Raises AgentError where another user made it
    first, or may enter it.
    """
    folder = volatile_folder()
    for each in (folder, volatile_folder(run_id)):
        try:
            os.mkdir(each, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(each)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise AgentError(
                "BoxNotReady",
                "%s belongs to somebody else, or others may enter it" % each,
                "Remove it on the box: secrets and locks would not be safe there.",
            )
    return volatile_folder(run_id)


def run_lock(run: RunPaths) -> str:
    """The path of a run's lock file."""
    return lock_file(run.lock)


def lock_file(path: str) -> str:
    """``path``, or a place in memory where the filesystem of ``path`` cannot lock."""
    folder, name = os.path.split(path)
    return path if _can_lock(folder) else os.path.join(make_volatile(), "lock-" + name)


def _can_lock(folder: str) -> bool:
    if folder in _tried:
        return _tried[folder]
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        descriptor = os.open(os.path.join(folder, ".try"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # read-only or full: taking a lock there raises the same error
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _tried[folder] = True
    except OSError as error:
        _tried[folder] = error.errno not in NO_LOCKS
    finally:
        os.close(descriptor)
    return _tried[folder]


def take_run(run: RunPaths) -> Optional[int]:
    """The run's lock as a descriptor, None while another process holds it. Raises OSError."""
    os.makedirs(os.path.dirname(run.lock), 0o700, exist_ok=True)
    remove_empty_folder(run_lock(run))
    return take(run_lock(run))


def take(path: str) -> Optional[int]:
    """Locks the file at ``path``, made where it is missing. Gives the descriptor, whose closing frees the lock, or None while another
    process holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if _lock(descriptor, fcntl.LOCK_EX):
            if _still_there(path, descriptor):
                return descriptor
        elif not _lock(descriptor, fcntl.LOCK_SH):
            os.close(descriptor)
            return None
        os.close(
            descriptor
        )  # the file was removed between our open and our lock, or another process only asked (``is_held``): again


def take_within(path: str, seconds: float) -> Optional[int]:
    """``take``, tried again until ``seconds`` are over; None if another process holds the lock all the while."""
    deadline = time.monotonic() + seconds
    descriptor = take(path)
    while descriptor is None and time.monotonic() < deadline:
        time.sleep(TRY_EVERY)
        descriptor = take(path)
    return descriptor


def is_held(path: str) -> bool:
    """Whether a process holds the lock at ``path``. Asks with a shared lock, so that two processes that ask do not block each other."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def drop(path: str, descriptor: int) -> None:
    """Removes a lock's file, then frees the lock. A process that had opened the file sees that it is gone, and opens the new one."""
    remove_quietly(path)
    os.close(descriptor)


def leave_run(run: RunPaths, descriptor: int) -> None:
    """Removes a run's lock, and its volatile folder if that is empty."""
    drop(run_lock(run), descriptor)
    try:
        os.rmdir(volatile_folder(run.run_id))
    except OSError:
        pass


def _lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise
        return False


def _still_there(path: str, descriptor: int) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
