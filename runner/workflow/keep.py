"""``gpurun keep``: stays until its runs are over, and brings home what each has as it appears, whatever happens to links and addresses.

One thread and one link a host. The main thread starts them, shows what they tell, and ends them at Ctrl-C.
"""

from __future__ import annotations

import queue
import shlex
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from runner.domain.errors import GpurunError, Interrupted
from runner.domain.quantities import pluralise
from runner.domain.run import Run
from runner.workflow.each_host import Place, place_of
from runner.workflow.keeping.board import Board, KeptRun, Line, would_be_lost
from runner.workflow.keeping.bring import begin
from runner.workflow.keeping.host import HostKeeper
from runner.workflow.keeping.outcome import end_of, tell
from runner.workflow.keeping.recovering import Recoverer
from runner.workflow.keeping.rule import Rule
from runner.workflow.observing.status import error_of
from runner.workflow.sweeping.find import sweep_of

SHOW_EVERY = 1.0  # seconds
ENDS_WITHIN = 4.0  # seconds that Ctrl-C waits for copies and links to end


class Display(Protocol):
    """Who is shown the runs while they are kept."""

    def line(self, line: Line) -> None:
        """A line that stays."""

    def show(self, runs: Sequence[KeptRun]) -> None:
        """The runs as they are now; about once a second."""


def keep(
    runs: Sequence[Run], display: Display, *, rule: Rule, on_end: Sequence[str] = (), recovers: bool = False
) -> list[KeptRun]:
    """Keeps these runs until all are over and home; how each ended. Raises Interrupted at Ctrl-C, with what is true then.

    With ``recovers`` what a restart of a box interrupted is started again, and the new runs are kept too.
    """
    board = Board([begin(run) for run in runs])
    recoverer = Recoverer(board, begin) if recovers else None
    keepers: dict[Place, HostKeeper] = {}
    telling: dict[str, threading.Thread | None] = {}
    try:
        while board.left or not telling.keys() >= {kept.run.run_id for kept in board.runs}:
            for where in {place_of(kept.run) for kept in board.left}:
                if where not in keepers or not keepers[where].is_alive():
                    keepers[where] = HostKeeper(where, board, rule)
                    keepers[where].start()
            if recoverer is not None:
                recoverer.look()
            for kept in [each for each in board.runs if each.over and each.run.run_id not in telling]:
                if recoverer is None or not recoverer.is_busy(kept):
                    telling[kept.run.run_id] = _ended(kept, board, on_end)
            _show(board, display)
        for thread in telling.values():
            if thread is not None:
                thread.join()
        _show(board, display, wait=False)
    except KeyboardInterrupt:
        board.stopping.set()
        end = time.monotonic() + ENDS_WITHIN
        for keeper in keepers.values():
            keeper.join(max(0.0, end - time.monotonic()))
        raise Interrupted(_what_is_true(board, rule, on_end, recovers)) from None
    return board.runs


def first_error(kept: Sequence[KeptRun]) -> GpurunError | None:
    """Why the first run that is not home ended, or did not succeed."""
    return next((error for each in kept if (error := error_about(each))), None)


def error_about(kept: KeptRun) -> GpurunError | None:
    """Why a run is not home, or how it failed; a run whose place another one took has not failed."""
    ended = error_of(kept.run.status) if kept.run.status and not kept.goes_on_as else None
    return kept.error or ended


def together_with(run: Run) -> list[Run]:
    """The run, and those of its submission that are not known to be over and home; without those that another run went on from."""
    there = [each for each in sweep_of(run).newest if each.may_be_there]
    return [each for each in there if each.run_id == run.run_id or each.fetched_at is None]


def _ended(kept: KeptRun, board: Board, on_end: Sequence[str]) -> threading.Thread | None:
    """A run is over here: tells its end, unless another run goes on in its place."""
    if kept.goes_on_as:
        return None
    if kept.error is not None:
        board.warn(f"{kept.run.run_id}: {kept.error.message}")
    else:
        end = end_of(kept)
        board.say(f"{end.run_id}: {end.outcome}, home in {end.place} ({pluralise(kept.files, 'new file')})")
    return tell(end_of(kept), on_end, board)


def _show(board: Board, display: Display, wait: bool = True) -> None:
    """Waits a moment for lines, and shows them and the runs."""
    try:
        display.line(board.lines.get(timeout=SHOW_EVERY if wait else 0.0))
        while True:
            display.line(board.lines.get_nowait())
    except queue.Empty:
        pass
    display.show(board.runs)


def _what_is_true(board: Board, rule: Rule, on_end: Sequence[str], recovers: bool) -> str:
    lines = [_stands(kept) for kept in board.runs]
    if board.left:
        words = ["gpurun", "keep", *(kept.run.run_id for kept in board.left)]
        words += [] if rule.is_all else ["--checkpoints", str(rule)]
        words += ["--on-end", shlex.join(on_end)] if on_end else []
        words += ["--recover"] if recovers else []
        lines.append(f"Go on: {shlex.join(words)}")
    return "\n".join(lines)


def _stands(kept: KeptRun) -> str:
    run_id, status = kept.run.run_id, kept.run.status
    if kept.goes_on_as:
        return f"{run_id} goes on as {kept.goes_on_as}"
    if kept.over:
        return f"{run_id}: {end_of(kept).outcome}" + (f", home in {kept.into}" if kept.error is None else "")
    home = f"{kept.home.name} is home in {kept.into}" if kept.home else "no checkpoint of it is home"
    if status is not None and status.finished:
        return f"{run_id} is over ({status.outcome}), and not all of it is home; {home}"
    if kept.unreachable:
        return f"{run_id} could not be asked just now, and goes on if its box does; {home}{would_be_lost(kept)}"
    return f"{run_id} goes on; {home}{would_be_lost(kept)}"
