"""``gpurun logs``: what was received before comes from disk, the rest from the box; without the box only the former."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.errors import HostError, StateError, UnknownRun
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.workflow.observing.follow import Sink, follow
from runner.workflow.observing.status import recorded_status
from runner.workflow.observing.timed_log import TimedLog, in_words

CHUNK = 1 << 18
AGAIN = 10  # lines that come again when a terminal goes on with a log


def show(run: Run, report: Reporter, sink: Sink, *, until_end: bool, tail: int | None, shown: int = 0) -> Status | None:
    """Gives ``sink`` the log, whole or from its last ``tail`` lines on; the status at the end, None when the box could not be asked.

    Its first ``shown`` bytes were printed before: only their last lines come again. The log of a finished run that is complete here
    can be read without the box.
    """
    file = places.run_folder(run.run_id) / "log"
    known = recorded_status(run)
    if known and known.status and known.status.finished and _size(file) == known.status.log_size:
        _repeat(file, tail, shown, report, sink)
        return known.status
    if tail is None:
        _repeat(file, None, shown, report, sink)
    try:
        return follow(run, report, sink, until_end=until_end, tail=tail, give_up=lambda: went_on(run) is not None)
    except HostError as error:
        if until_end and went_on(run) is None:
            raise
        if tail is not None:
            for chunk in read(file, tail):
                sink(chunk)
        report.warn(f"{error.message}; this is what had arrived before")
        return None


def show_timed(
    run: Run, report: Reporter, line: Callable[[str, bytes], None], *, until_end: bool, tail: int | None
) -> Status | None:
    """Gives ``line`` each line of the log with its time, from the last ``tail`` lines on; the status as ``show`` does.

    The times are of this machine's copy of the log, so the log comes here as a whole, whatever ``tail`` is.
    """
    folder = places.run_folder(run.run_id)
    status = show(run, report, lambda data: None, until_end=False, tail=None)
    log = TimedLog(folder, _start(folder / "log", tail))

    def tell(end: bool = False) -> None:
        for moment, text in log.lines(end=end):
            line(in_words(moment), text)

    tell()
    if until_end and not (status and status.finished):
        status = show(run, report, lambda data: tell(), until_end=True, tail=None, shown=_size(folder / "log"))
    tell(end=True)
    return status


def _start(file: Path, tail: int | None) -> int:
    if tail is None or not file.exists():
        return 0
    with open(file, "rb") as source:
        return start_of_tail(source.fileno(), tail, os.fstat(source.fileno()).st_size)


def went_on(run: Run) -> Run | None:
    """The run that goes on from this one, on its box or on another; None where nobody has resumed it, or its record is gone."""
    try:
        name = store.load(run.run_id).went_on_as
        return store.load(name) if name else None
    except (UnknownRun, StateError):
        return None


def _repeat(file: Path, tail: int | None, shown: int, report: Reporter, sink: Sink) -> None:
    start = 0
    if tail is None and 0 < shown <= _size(file):
        with open(file, "rb") as source:
            start = start_of_tail(source.fileno(), AGAIN, shown)
    if start:
        report.note(f"… {start:,} bytes were shown here before: gpurun logs {file.parent.name} prints all")
    for chunk in read(file, tail, start):
        sink(chunk)


def read(file: Path, tail: int | None, start: int = 0) -> Iterator[bytes]:
    """The bytes of a local log in chunks, from ``start`` on; with ``tail`` from its last lines on."""
    if not file.exists():
        return
    with open(file, "rb") as source:
        source.seek(start if tail is None else _start(file, tail))
        while chunk := source.read(CHUNK):
            yield chunk


def start_of_tail(descriptor: int, lines: int, end: int) -> int:
    """The offset where the last ``lines`` lines before ``end`` begin, found from there."""
    at, wanted = end, lines
    while at > 0:
        start = max(0, at - CHUNK)
        block = os.pread(descriptor, at - start, start)
        stop = len(block) - 1 if at == end and block.endswith(b"\n") else len(block)
        while (found := block.rfind(b"\n", 0, stop)) >= 0:
            wanted -= 1
            if wanted <= 0:
                return start + found + 1
            stop = found
        at = start
    return 0 if lines else end


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
