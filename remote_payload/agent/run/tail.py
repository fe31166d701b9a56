"""Reads a file that grows, from an offset, byte by byte, and reports when it was replaced or truncated, or its beginning freed."""

import errno
import os
from typing import Any, Callable, Dict, Optional

from remote_payload.agent.run.state import generation
from remote_payload.agent.wire.protocol import MAX_BYTES

CHUNK = 256 * 1024
AT_ONCE = 8 * 1024 * 1024  # bytes of one file before the other file is read
LOOK_BACK = 4 * 1024 * 1024  # how far back "the last N lines" may begin

Send = Callable[[int, bytes], None]
Report = Callable[[Dict[str, Any]], None]


class Tail:
    """One file under ``path``. ``send(offset, bytes)`` gets the new bytes, ``report`` what happened to the file.

    ``report`` is first called with ``{generation, offset, size}``, and again with ``change`` (``replaced``, ``truncated``, ``gap``
    with ``bytes``, ``deleted``) whenever the offsets are not continuous. ``generation`` is that of the file that the offset is from.
    With ``lines`` it begins with the last lines, wherever the offset is; with ``last_bytes`` not before that many bytes of the end.
    """

    def __init__(
        self,
        path: str,
        offset: int,
        generation: str,
        send: Send,
        report: Report,
        lines: Optional[int] = None,
        last_bytes: Optional[int] = None,
    ) -> None:
        self.path = path
        self.offset = offset
        self.generation = generation
        self._lines, self._last_bytes = lines, last_bytes
        self._send = send
        self._report = report
        self._descriptor = -1
        self._deleted = False

    def pump(self) -> bool:
        """Sends the bytes that the file has now, AT_ONCE at most. Whether it had any."""
        if self._descriptor < 0 and not self._open():
            return False
        found = os.fstat(self._descriptor)
        if found.st_size < self.offset:
            self._start("truncated", 0)
        sent = self._send_up_to(min(found.st_size, self.offset + AT_ONCE))
        if not sent:
            self._check_name(found)
        return sent

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        found = os.fstat(self._descriptor)
        change = None
        if self.generation and self.generation != generation(found):
            change, self.offset = "replaced", 0
        elif self.offset > found.st_size:
            change, self.offset = "truncated", 0
        if self._lines is not None:
            self.offset, self._lines = last_lines(self._descriptor, found.st_size, self._lines), None
        if self._last_bytes is not None:
            self.offset, self._last_bytes = max(self.offset, found.st_size - self._last_bytes), None
        self._start(change, self.offset)
        return True

    def _start(self, change: Optional[str], offset: int) -> None:
        found = os.fstat(self._descriptor)
        self.offset, self.generation = offset, generation(found)
        position = {"generation": self.generation, "offset": offset, "size": found.st_size}
        self._report(dict(position, change=change) if change else position)

    def _send_up_to(self, end: int) -> bool:
        begin = self.offset
        while self.offset < end:
            data = os.pread(self._descriptor, min(CHUNK, MAX_BYTES, end - self.offset), self.offset)
            freed = self._freed()
            if freed:
                self._report({"change": "gap", "generation": self.generation, "offset": self.offset, "bytes": freed})
                self.offset += freed
            elif data:
                self._send(self.offset, data)
                self.offset += len(data)
            else:
                break
        return self.offset > begin

    def _freed(self) -> int:
        """Bytes at the offset that the log quota has freed (a hole). Asked after they were read, so that zeros are never sent as log.

        A hole reads as zeros, which is checked: old ZFS reports data that it has not yet written as a hole.
        """
        try:
            data_at = os.lseek(self._descriptor, self.offset, os.SEEK_DATA)
        except OSError as error:
            data_at = os.fstat(self._descriptor).st_size if error.errno == errno.ENXIO else self.offset
        freed = data_at - self.offset
        return freed if freed > 0 and not os.pread(self._descriptor, min(CHUNK, freed), self.offset).strip(b"\0") else 0

    def _check_name(self, ours: os.stat_result) -> None:
        """After the last byte of this file: opens another file that has its name now."""
        try:
            there = os.stat(self.path)
        except OSError:
            if not self._deleted:
                self._deleted = True
                self._report({"change": "deleted", "generation": self.generation, "offset": self.offset})
            return
        if generation(there) != generation(ours):
            self.close()
            self._open()


def last_lines(descriptor: int, size: int, count: int) -> int:
    """The offset at which the last ``count`` lines begin, read from the end; LOOK_BACK before the end at most, even within a line."""
    if count <= 0:
        return size
    floor = max(0, size - LOOK_BACK)
    position, wanted = size, count
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        wanted -= 1  # the last line has no end yet
    while position > floor:
        begin = max(floor, position - 65536)
        block = os.pread(descriptor, position - begin, begin)
        at = len(block)
        while at >= 0:
            at = block.rfind(b"\n", 0, at)
            if at >= 0:
                if wanted <= 0:
                    return begin + at + 1
                wanted -= 1
        position = begin
    return floor
