"""A run's log and events, byte for byte, across sleep and lost networks.

The size of the local copy is the offset: it grows only when bytes are written here. So after any interruption the next
connection goes on at exactly that byte. Two gpurun on one run write the same bytes at the same places.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.errors import HostError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.files import writing
from runner.workflow.lost_links import through_lost_links

if TYPE_CHECKING:
    from runner.domain.answers.verbs import Moved
    from runner.transport.link import Link

Sink = Callable[[bytes], None]  # gets the log's new bytes; none of them where events have come


def follow(
    run: Run,
    report: Reporter,
    sink: Sink,
    *,
    until_end: bool,
    tail: int | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> Status:
    """Brings the log up to date, and with ``until_end`` goes on to the end of the run; each new byte is given to ``sink`` once.

    With ``tail`` only the last lines cross the network, and the local copy stays as it is. A lost link is reconnected
    with growing pauses, until ``give_up`` says so before a try.
    Raises the HostErrors that trying again does not mend.
    """
    copy = LocalCopy(run) if tail is None else TailStream(tail)

    def visit(link: Link) -> Status:
        status = _stream(link, run, copy, sink, until_end)
        remember_status(run, status)
        return status

    return through_lost_links(
        run,
        report,
        visit,
        progress=lambda: copy.log_offset,
        give_up=lambda: not until_end or give_up(),
    )


def catch_up(link: Link, run: Run, *, note: bool = True, copy: LocalCopy | None = None) -> Status:
    """Brings the local copy up to date over a link that is there, printing nothing. With ``note`` the status goes into the record."""
    status = _stream(link, run, copy or LocalCopy(run), lambda data: None, until_end=False)
    if note:
        remember_status(run, status)
    return status


def _stream(link: Link, run: Run, copy: LocalCopy | TailStream, sink: Sink, until_end: bool) -> Status:
    from runner.domain.answers.verbs import Followed, Moved, Piece

    stream = link.agent.follow(
        run.run_id,
        log_offset=copy.log_offset,
        generation=copy.generation,
        events_offset=copy.events_offset,
        until_end=until_end,
        tail=copy.tail,
        last_bytes=copy.last_bytes,
    )
    for message in stream:
        if isinstance(message, Piece) and message.of == "log":
            sink(copy.write_log(message.offset, message.data))
        elif isinstance(message, Piece):
            copy.write_events(message.offset, message.data)
            sink(b"")
        elif isinstance(message, Moved):
            _handle_move(message, copy, sink)
        elif isinstance(message, Followed):
            return message.status
    raise AssertionError("a stream ends with Followed, or raises")


def _handle_move(moved: Moved, copy: LocalCopy | TailStream, sink: Sink) -> None:
    """A notice about the file itself: that it is another one, that it was replaced, or that its beginning was deleted."""
    if moved.of == "events":
        if moved.change in ("replaced", "truncated"):
            copy.start_events_over()
        return
    if moved.change in ("replaced", "truncated"):
        copy.start_over()
        sink(b"\n[gpurun: the log on the box was %s; it starts again here]\n" % moved.change.encode())
    if moved.change == "gap":
        copy.skip_to(moved.offset + moved.size)
        sink(b"\n[gpurun: %d bytes of the log were dropped on the box to keep its disk free]\n" % moved.size)
    if moved.generation != copy.generation:
        copy.is_of(moved.generation)


def remember_status(run: Run, status: Status) -> None:
    """Keeps a status in the run's record. Which file the copy of the log continues is noted where the log is brought, and only there."""
    store.update(run, status=status, status_at=time.time())


class TailStream:
    """The last ``tail`` lines, which are not stored here: only the offset to go on from is kept."""

    last_bytes: int | None = None

    def __init__(self, tail: int) -> None:
        self.tail: int | None = tail
        self.generation: str | None = (
            None  # of the file on the box; the record has that of the copy, which this does not touch
        )
        self.log_offset = 0
        self.events_offset = 0

    def is_of(self, generation: str) -> None:
        self.generation = generation

    def write_log(self, offset: int, data: bytes) -> bytes:
        data = data if self.tail is not None else data[max(0, self.log_offset - offset) :]
        self.tail, self.log_offset = None, offset + len(data)
        return data

    def write_events(self, offset: int, data: bytes) -> None:
        self.events_offset = offset + len(data)

    def skip_to(self, offset: int) -> None:
        self.log_offset = max(self.log_offset, offset)

    def start_over(self) -> None:
        self.log_offset = 0

    def start_events_over(self) -> None:
        self.events_offset = 0


class LocalCopy:
    """This machine's copy of one run's log and events. Which file on the box it continues (``generation``) stands in the run's record."""

    tail: int | None = None  # only so many of the log's last lines are asked for
    last_bytes: int | None = None  # no more of the log than that

    def __init__(self, run: Run) -> None:
        self._run = run
        self._folder = places.run_folder(run.run_id)
        self._log = _open(self._folder / "log")
        self._events = _open(self._folder / "events.jsonl")
        self.log_offset = os.fstat(self._log).st_size
        self.events_offset = os.fstat(self._events).st_size

    @property
    def generation(self) -> str | None:
        return self._run.generation

    def is_of(self, generation: str) -> None:
        """The log on the box is another file now, or was none before."""
        store.update(self._run, generation=generation)

    def write_log(self, offset: int, data: bytes) -> bytes:
        """Writes what is new of these bytes, and gives it. Raises HostError for bytes that leave a hole."""
        data = self._fresh(offset, data, self.log_offset, "log")
        _write_at(self._log, data, self.log_offset, self._folder / "log")
        self.log_offset += len(data)
        return data

    def write_events(self, offset: int, data: bytes) -> None:
        data = self._fresh(offset, data, self.events_offset, "events")
        _write_at(self._events, data, self.events_offset, self._folder / "events.jsonl")
        self.events_offset += len(data)

    def skip_to(self, offset: int) -> None:
        """Leaves a hole (sparse, no bytes) for what no longer exists on the box."""
        if offset > self.log_offset:
            with writing(self._folder / "log"):  # a disk may refuse even a hole that is larger than its largest file
                os.ftruncate(self._log, offset)
            self.log_offset = offset

    def start_over(self) -> None:
        os.ftruncate(self._log, 0)
        self.log_offset = 0

    def start_events_over(self) -> None:
        os.ftruncate(self._events, 0)
        self.events_offset = 0

    def _fresh(self, offset: int, data: bytes, have: int, what: str) -> bytes:
        if offset > have:
            raise HostError(f"the box left out {offset - have} bytes of the {what}", hint="Repeat the command.")
        return data[have - offset :]

    def __del__(self) -> None:
        for descriptor in (getattr(self, "_log", -1), getattr(self, "_events", -1)):
            if descriptor >= 0:
                os.close(descriptor)


def _open(file: Path) -> int:
    with writing(file):
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def _write_at(descriptor: int, data: bytes, offset: int, file: Path) -> None:
    view = memoryview(data)
    with writing(file):
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
