"""The supervisor's side of the process that reads the log for steps: it is started beside the payload, and ended with it."""

import os
import signal
import sys
import time
from typing import Callable, List, Optional

from remote_payload.agent.box.files import read_json
from remote_payload.agent.run import events, spawn
from remote_payload.agent.run.alive import LOG_READER
from remote_payload.agent.run.checkpoints.rule import is_foreign
from remote_payload.agent.run.progress.patterns import AUTO, OFF
from remote_payload.agent.wire.paths import RunPaths

LAST_READ = 5.0  # seconds for what is left of the log
PAUSE = 0.02
GAVE_UP = "a pattern of progress: takes too long on this log, so the log is not read for steps any more"


def written_in(run: RunPaths) -> List[str]:
    """``progress:`` of the run's job; ``off`` for a recipe of gpurun's, which tells its steps itself."""
    job = read_json(run.job) or {}
    written = job.get("progress") or [AUTO]
    usable = isinstance(written, list) and all(isinstance(each, str) for each in written)
    return written if usable and is_foreign(run) else [OFF]


class LogReader:
    """The process of one run. Every failure of it costs steps in the status, and nothing else."""

    def __init__(self, run: RunPaths) -> None:
        self._run = run
        self._wanted = written_in(run) != [OFF]
        self._pid: Optional[int] = None
        self._ours = -1  # our end of its standard input: it reads until we close it or die

    def start(self) -> None:
        """Starts it, once there is anything to read; it is not started twice."""
        try:
            if self._wanted and os.stat(self._run.log).st_size:
                self._wanted = False
                self._spawn()
        except OSError as error:
            print("progress: %s" % error, file=sys.stderr)

    def _spawn(self) -> None:
        theirs, self._ours = os.pipe()
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        argv = spawn.agent_command(LOG_READER, self._run.folder)
        try:
            actions = [(os.POSIX_SPAWN_DUP2, theirs, 0), (os.POSIX_SPAWN_DUP2, nothing, 1)]
            defaults = [signal.SIGVTALRM, signal.SIGPIPE]
            self._pid = os.posix_spawn(
                argv[0], argv, spawn.box_environment(), file_actions=actions, setsigmask=[], setsigdef=defaults
            )
        finally:
            os.close(theirs)
            os.close(nothing)

    def collected(self, pid: int, status: int) -> None:
        """For each child that ended."""
        if pid != self._pid:
            return
        self._pid = None
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGVTALRM:
            events.append(self._run.events, "flag", name="progress", message=GAVE_UP)

    def finish(self, collect: Callable[[], None]) -> None:
        """When the program has ended: lets it read the rest of the log, for LAST_READ at most. ``collect`` collects ended children."""
        self.start()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
        deadline = time.monotonic() + LAST_READ
        collect()
        while self._pid is not None and time.monotonic() < deadline:
            time.sleep(PAUSE)
            collect()
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)  # a child of ours that was not collected: its number is its own
