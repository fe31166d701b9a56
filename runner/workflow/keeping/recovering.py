"""``keep --recover``: what a restart of a box interrupted is started again as soon as it answers, as ``gpurun resume --all`` does it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from runner.domain.errors import GpurunError, HostError, HostKeyChanged
from runner.domain.run import Run
from runner.workflow.keeping.board import Board, KeptRun
from runner.workflow.keeping.host import FIRST_PAUSE, LONGEST_PAUSE, Lines
from runner.workflow.recovery.recover import recover
from runner.workflow.recovery.turns import STAYS, Turn

Begin = Callable[[Run], KeptRun]


class Recoverer:
    """Starts again, in one thread a host, all that a restart interrupted there; the new runs of kept ones are put on the board."""

    def __init__(self, board: Board, begin: Begin) -> None:
        self._board, self._begin = board, begin
        self._asked: set[str] = set()  # runs whose box was asked, or is being asked
        self._threads: dict[str, threading.Thread] = {}

    def look(self) -> None:
        """Begins with each host where a run was interrupted that nobody has begun with."""
        for host in {kept.run.host for kept in self._new()}:
            if host not in self._threads or not self._threads[host].is_alive():
                kept = [each for each in self._new() if each.run.host == host]
                self._asked.update(each.run.run_id for each in kept)
                self._threads[host] = threading.Thread(target=self._recover, args=(host,), daemon=True)
                self._threads[host].start()

    def is_busy(self, kept: KeptRun) -> bool:
        """Whether it is not known yet what becomes of this run."""
        thread = self._threads.get(kept.run.host)
        return is_interrupted(kept) and (
            kept.run.run_id not in self._asked or (thread is not None and thread.is_alive())
        )

    def _new(self) -> list[KeptRun]:
        return [each for each in self._board.runs if is_interrupted(each) and each.run.run_id not in self._asked]

    def _recover(self, host: str) -> None:
        """Until the box has answered. Raises nothing: what goes wrong stands on the board."""
        pause = FIRST_PAUSE
        while not self._board.stopping.is_set():
            try:
                return self._show(recover(host, Lines(self._board)))
            except HostKeyChanged as error:
                return self._board.warn(f"{host}: nothing was started again: {error.message}")
            except HostError:  # it is being restarted still, or again: the keeper of the host tells that
                self._board.stopping.wait(pause * random.uniform(0.7, 1.3))
                pause = min(pause * 2, LONGEST_PAUSE)
            except GpurunError as error:
                return self._board.warn(f"{host}: nothing was started again: {error.message}")

    def _show(self, turns: Sequence[Turn]) -> None:
        kept = {each.run.run_id: each for each in self._board.runs}
        for turn in turns:
            if turn.what == STAYS:
                self._board.warn(
                    f"{turn.run_id} stays as it is: {turn.why}" + (f"\n  {turn.hint}" if turn.hint else "")
                )
                continue
            if turn.new is None or not turn.started:
                continue
            self._board.say(f"{turn.run_id} was interrupted, and goes on as {turn.new.run_id}")
            if turn.run_id in kept:
                self._board.runs.append(self._begin(turn.new))
                kept[turn.run_id].goes_on_as = turn.new.run_id


def is_interrupted(kept: KeptRun) -> bool:
    """Whether a restart of its box ended it, and nothing has taken its place."""
    status = kept.run.status
    return status is not None and status.outcome == "interrupted" and kept.goes_on_as is None
