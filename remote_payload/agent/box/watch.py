"""Waits until something in a folder changes: inotify by ctypes, or a check every 100 ms where there is none."""

import ctypes
import os
import select
import time

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_TO, CREATE, DELETE = 0x2, 0x4, 0x8, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
CHANGES = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
POLL = 0.1


class Watch:
    """Wakes up when a file in ``folder`` is written to, made, renamed or removed."""

    def __init__(self, folder: str) -> None:
        self._descriptor = -1
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            watching = libc.inotify_add_watch(self._descriptor, os.fsencode(folder), CHANGES) >= 0
        except (OSError, AttributeError):
            watching = False
        if not watching:  # no such folder yet, too many watches of this user, or a filesystem without inotify: poll
            self.close()

    def wait(self, seconds: float) -> None:
        """Returns at the next change, or after ``seconds``; after POLL at most where there is no inotify."""
        if self._descriptor < 0:
            time.sleep(min(POLL, seconds))
        elif select.select([self._descriptor], [], [], seconds)[0]:
            os.read(self._descriptor, 65536)

    def close(self) -> None:
        """Closes the watch."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
