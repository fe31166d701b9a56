"""One link to a host while it lasts: looks every few seconds at what its runs do, and brings home what is new, one run at a time.

A copy runs in a thread of its own, so that logs and statuses go on meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.answers.verbs import Kept
from runner.domain.errors import (
    ArtifactError,
    BeingFetched,
    ChecksumMismatch,
    DiskTrouble,
    FilesChanged,
    GpurunError,
    RunLost,
    TransferError,
    TransferInterrupted,
)
from runner.domain.quantities import format_size
from runner.transport.link import Link
from runner.workflow.keeping.board import Board, Ended, KeptRun, RunReporter, would_be_lost
from runner.workflow.keeping.bring import Listing, bring_home, newest_here
from runner.workflow.keeping.home import Home
from runner.workflow.keeping.rule import Rule
from runner.workflow.observing.follow import catch_up, remember_status
from runner.workflow.observing.status import NOT_THERE, not_there

LOOK_EVERY = 3.0  # seconds
OUTPUTS_EVERY = 60.0  # seconds after which logs and reports come home without a new checkpoint
SOON, LATER = 3.0, 30.0  # seconds until a copy that failed is tried again: where that alone may mend it, and else
NOTE_EVERY = 30.0  # seconds after which a status without news is written into the record
MENDED_BY_ANOTHER_TRY = (TransferInterrupted, FilesChanged, ChecksumMismatch, BeingFetched)


class Visit:
    """The runs that ``runs`` gives, over one link."""

    def __init__(self, board: Board, rule: Rule, runs: Callable[[], list[KeptRun]]) -> None:
        self._board, self._rule, self._runs = board, rule, runs
        self._listed: dict[str, Listing] = {}  # by run, the checkpoints when it was last brought home
        self._due: dict[str, float] = {}  # by run, when it is brought home next, whatever is new
        self._copy: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._wake, self._ending = threading.Event(), threading.Event()

    def stay(self, link: Link) -> None:
        """Until no run is left. Raises the error that broke the link."""
        while self._runs():
            self._begin_copy(link)
            self._wake.wait(LOOK_EVERY)
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            self.look(link)

    def end(self) -> None:
        """Ends the copy under way, if there is one, and waits for it."""
        self._ending.set()
        if self._copy is not None:
            self._copy.join()

    def look(self, link: Link) -> None:
        """Brings statuses and logs up to date. Raises HostError."""
        runs = self._runs()
        if not runs:
            return
        statuses = link.agent.statuses([kept.run.run_id for kept in runs])
        for kept in runs:
            status = statuses[kept.run.run_id]
            if status.cause == NOT_THERE:
                self._missing(link, kept)
                continue
            with contextlib.suppress(RunLost):  # its folder was deleted this moment: the next look says so
                _look_at(link, kept, status)

    def _missing(self, link: Link, kept: KeptRun) -> None:
        """The box has no such run. Its own box: that is the end of the run. Another one, which has its address now: it is waited for."""
        run = kept.run
        if not run.box or not link.agent.identity or run.box == link.agent.identity:
            return kept.give_up(not_there(run))
        message = f"another box answers at {run.host}, or its disk was emptied: nothing of {run.run_id} is there"
        if kept.unreachable != message:
            self._board.warn(
                f"{message}\n  Where its own box has moved to: gpurun hosts move '{run.host}' NEW. This then goes on by itself."
            )
        kept.unreachable = message

    # Copies

    def _begin_copy(self, link: Link) -> None:
        """Begins with the run of which most would be lost, unless a copy is under way or nothing is new."""
        if self._copy is not None and self._copy.is_alive():
            return
        due = [kept for kept in self._runs() if self._is_due(link, kept)]
        if due:
            kept = max(due, key=lambda kept: kept.lost_seconds or 0.0)
            self._copy = threading.Thread(target=self._run_copy, args=(link, kept), daemon=True)
            self._copy.start()

    def _is_due(self, link: Link, kept: KeptRun) -> bool:
        run_id, status = kept.run.run_id, kept.run.status
        if status is None or (status.started_at is None and not status.finished):
            return False  # it waits for a GPU
        if time.monotonic() >= self._due.get(run_id, 0.0):
            return True
        if kept.trouble:
            return False
        try:
            return status.finished or link.agent.checkpoints(run_id) != self._listed.get(run_id)
        except RunLost:
            return False

    def _run_copy(self, link: Link, kept: KeptRun) -> None:
        try:
            self._bring(link, kept)
        except (Ended, RunLost):
            pass
        except BaseException as error:
            self._failure = error
        finally:
            self._wake.set()

    def _bring(self, link: Link, kept: KeptRun) -> None:
        """Brings one run's outputs up to date. Raises HostError for a link that broke."""
        run, over = kept.run, kept.run.status is not None and kept.run.status.finished
        listed = link.agent.checkpoints(run.run_id)

        def arrived(checkpoint: Kept) -> None:
            kept.home = newest_here(Home(run, run.outputs_here))
            self._board.say(
                f"{run.run_id}: {checkpoint.name} is home ({format_size(checkpoint.size)}){would_be_lost(kept)}"
            )

        report = RunReporter(self._board, kept, self._ending)
        try:
            brought = bring_home(link, run, listed, self._rule, report, arrived)
        except (TransferError, ArtifactError, DiskTrouble) as error:
            return self._failed(kept, error, over)
        kept.brought(brought.new, brought.into, brought.newest)
        self._listed[run.run_id], self._due[run.run_id] = listed, time.monotonic() + OUTPUTS_EVERY
        if brought.complete and over:
            store.update(run, fetched_at=time.time())
            kept.over = True

    def _failed(self, kept: KeptRun, error: GpurunError, over: bool) -> None:
        """While the run goes on a copy that failed is tried again; of a run that is over only where another try may mend it."""
        may_mend = isinstance(error, MENDED_BY_ANOTHER_TRY)
        self._due[kept.run.run_id] = time.monotonic() + (SOON if may_mend else LATER)
        if over and not may_mend:
            return kept.give_up(error)
        first, again = not kept.trouble, kept.trouble == error.message
        kept.trouble = error.message
        if not again and not (first and may_mend):  # a box may well delete an old checkpoint while it is copied
            self._board.warn(f"{kept.run.run_id}: {error.message}; trying again\n  {error.hint}")


def _look_at(link: Link, kept: KeptRun, status: Status) -> None:
    """Notes the status, and brings log and events where they have grown."""
    run, before = kept.run, kept.run.status
    kept.unreachable = ""
    if _log_size(run.run_id) != status.log_size or before is None or before.progress != status.progress:
        status = catch_up(link, run, note=False)
        if status.finished and _log_size(run.run_id) < status.log_size:
            # It wrote its last lines and ended between the look at its log and the one at its status. The copy that begins for a run
            # that is over may be the last thing that is done for it.
            status = catch_up(link, run, note=False)
    told = time.time() - (kept.noted_at or 0.0)
    if before is None or before.phase != status.phase or told > NOTE_EVERY:
        remember_status(run, status)
        kept.noted_at = time.time()
    run.status, run.status_at = status, time.time()


def _log_size(run_id: str) -> int:
    try:
        return (places.run_folder(run_id) / "log").stat().st_size
    except OSError:
        return 0
