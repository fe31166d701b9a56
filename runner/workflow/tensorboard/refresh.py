"""Brings the TensorBoard logs of runs home again and again while they train, and nothing else of them. One thread and one link a box."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from runner.domain.answers.manifest import Manifest
from runner.domain.errors import GpurunError, HostError, TransferInterrupted
from runner.domain.progress import Reporter, Silent
from runner.domain.run import Run
from runner.files import file_lock_if_free
from runner.transport.link import Link
from runner.workflow.connect import connect, resolve_or_start_host
from runner.workflow.each_host import Place
from runner.workflow.fetch import CHANGED, bring
from runner.workflow.tensorboard.mirror import is_event_file, logs_here

EVERY = 5.0  # seconds between two questions to a box
PAUSE = 20.0  # seconds before a link that broke is opened again


def may_have_more(run: Run) -> bool:
    """Whether the box of a run may have logs that are not here."""
    is_over = run.status is not None and run.status.finished
    return run.may_be_there and not run.done and not (is_over and run.fetched_at is not None)


class Refresher(threading.Thread):
    """Brings home the logs of these runs, which are at ``where``, until they are over or ``ending`` is set. It raises nothing: what goes
    wrong is told to ``report``, each kind of trouble once."""

    def __init__(self, where: Place, runs: Iterable[Run], report: Reporter, ending: threading.Event) -> None:
        super().__init__(name=f"tensorboard {where.host}", daemon=True)
        self._where, self._left = where, list(runs)
        self._report, self._ending = report, ending
        self._told: set[str] = set()

    def run(self) -> None:
        while self._left and not self._ending.is_set():
            try:
                with connect(resolve_or_start_host(*self._where), Silent()) as link:
                    self._stay(link)
            except GpurunError as error:
                going_on = isinstance(error, HostError) and error.retryable
                self._tell(error, "trying again" if going_on else "what is here is shown")
                if not going_on:
                    return
                self._ending.wait(PAUSE)
            except Exception as error:
                self._tell(GpurunError(f"{type(error).__name__}: {error}"), "this is a bug of gpurun's")
                return

    def _stay(self, link: Link) -> None:
        """Until no run is left. Raises the error that broke the link."""
        while self._left and not self._ending.is_set():
            for run in list(self._left):
                if self._ending.is_set():
                    return
                self._refresh(link, run)
            self._told.clear()
            if self._left:
                self._ending.wait(EVERY)

    def _refresh(self, link: Link, run: Run) -> None:
        try:
            manifest = link.agent.manifest(run.run_id)
            if not _bring(link, run, manifest):
                return
        except HostError:
            raise
        except (TransferInterrupted, *CHANGED):
            return  # the next look has it
        except GpurunError as error:
            self._left.remove(run)
            return self._tell(error, "what is here of it is shown")
        if manifest.complete:
            self._left.remove(run)
            self._report.note(f"{run.run_id} is over; its TensorBoard logs are here")

    def _tell(self, error: GpurunError, then: str) -> None:
        if error.message not in self._told:
            self._told.add(error.message)
            self._report.warn(f"{error.message}; {then}")


def _bring(link: Link, run: Run, manifest: Manifest) -> bool:
    """Brings the event files that are not here, verified; False where another gpurun does that at this moment."""
    target = logs_here(run)
    files = tuple(file for file in manifest.files if is_event_file(file.path))
    if not files:
        return True
    target.mkdir(mode=0o700, exist_ok=True)
    with file_lock_if_free(target.with_name("tensorboard.json")) as alone:
        if alone:
            bring(link, run, [files], target, Silent())
        return alone
