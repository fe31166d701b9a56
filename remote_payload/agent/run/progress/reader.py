"""The process beside a run's supervisor that reads the log for steps. It can be ended at any moment, and nothing waits for it.

Once a second it reads what is new, at most READ_AT_ONCE: of a log that grows faster the newest part. A pattern of the user's that takes
too long on a line costs this process its life, and nothing else (``setitimer``: no regular expression can be interrupted from Python).
"""

import os
import re
import resource
import select
import signal
from typing import List

from remote_payload.agent.box import daemon
from remote_payload.agent.run import events
from remote_payload.agent.run.progress.parser import Parser, Seen, one_a_step
from remote_payload.agent.run.progress.process import written_in
from remote_payload.agent.run.progress.trainer_state import States
from remote_payload.agent.run.progress.written import AT_ONCE, Written
from remote_payload.agent.wire.paths import RunPaths

EVERY = 1.0  # seconds
READ_AT_ONCE = 64 * 1024  # bytes
CPU_LIMIT = 1.0  # seconds of one round
MEMORY_LIMIT = 1 << 29  # bytes of address space
STATES_EVERY = 10  # rounds
OLD_ENTRIES = 200  # of a Trainer's history, in one round


def read_progress(folder: str) -> int:
    """Reads until the supervisor closes our standard input, or has died; then what is left. Gives the exit status."""
    os.nice(5)
    daemon.set_oom_score("500")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    run = RunPaths(folder)
    try:
        reader = Reader(run, written_in(run))
    except re.error as error:
        events.append(
            run.events,
            "flag",
            name="progress",
            message="a pattern of progress: means nothing to the box's Python: %s" % error,
        )
        return 0
    over = False
    while not over and not reader.is_done():
        over = bool(select.select([0], [], [], EVERY)[0])
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT)
        reader.round(over)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return 0


class Reader:
    """The log of one run, its parser and its events."""

    def __init__(self, run: RunPaths, written: List[str]) -> None:
        """Raises re.error."""
        self._run = run
        self._written = Written(run.events)
        self._parser = Parser(written, self._written.offset)
        self._rounds = 0
        self._begun: List[Seen] = []  # the newest step, where the next line may tell more of it
        self._states = States(run.outputs) if self._parser.dictionaries is not None else None

    def is_done(self) -> bool:
        """Whether nothing has to be read any more: the program tells its steps itself."""
        return self._written.left_to_program

    def round(self, last: bool) -> None:
        """Reads on once; with ``last`` what has no end yet, too."""
        if self._rounds % STATES_EVERY == 0 or last:
            self._take_state()
        self._rounds += 1
        seen = list(self._parser.feed(self._new_bytes()))
        self._write(seen + (list(self._parser.rest()) if last else []), last)
        self._written.look()

    def _new_bytes(self) -> bytes:
        lines = self._parser.lines
        try:
            with open(self._run.log, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                if size - lines.offset > READ_AT_ONCE and self._rounds > 1:  # the settings stand at the beginning
                    lines.jump(size - READ_AT_ONCE)
                log.seek(lines.offset)
                return log.read(READ_AT_ONCE)
        except OSError:
            return b""

    def _write(self, seen: List[Seen], last: bool) -> None:
        """What was measured: the newest evaluations and the newest loss. Where nothing was, the newest step that is over: of one that
        may still grow the loss may come yet. At the end of the log that one, too.
        """
        steps = one_a_step(
            self._begun + [each for each in seen if "step" in each.told.step or "loss" in each.told.step]
        )
        self._begun = [each for each in steps[-1:] if each.told.grows and not last]
        over = steps[: len(steps) - len(self._begun)]
        measured = [each for each in over if each.told.evaluation][-AT_ONCE:]
        losses = [each for each in over if "loss" in each.told.step]
        measured += [each for each in losses[-1:] if each not in measured]
        chosen = measured + [each for each in over[-1:] if each not in measured and (last or not measured)]
        for each in sorted(chosen, key=lambda each: each.end):
            self._written.place(each.told.step, each.end)
            self._written.evaluation(each.told, each.end)

    def _take_state(self) -> None:
        """A Trainer's newest state: the steps that no line of the log has told yet, and the total."""
        history = self._states.newest() if self._states is not None else None
        if history is None or self._parser.dictionaries is None:
            return
        self._parser.dictionaries.schedule = history.schedule
        known, end = self._written.step or 0, self._parser.lines.offset
        for told in history.after(known, OLD_ENTRIES):
            self._written.place(told.step, end)
            self._written.evaluation(told, end)
