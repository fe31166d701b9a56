"""The wait of a queued run for its turn and its GPUs, one look after another. An error in a look does not end the wait."""

import time
from typing import List, Optional, Tuple

from remote_payload.agent.box import gpus
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run import allotment
from remote_payload.agent.run.allotment import Allotment
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

# Seconds that a run waits, when no other GPU is free, before it takes one whose memory somebody else's process uses. The run would
# probably run out of memory, and so would the next in the queue; but a small process that never ends (a notebook) must not block the queue.
PATIENCE = 600.0


class Waiting:
    """One run's wait. ``available`` are the GPUs as they were when it began."""

    def __init__(self, paths: BoxPaths, run: RunPaths, available: List[Gpu], wanted: int) -> None:
        self._paths = paths
        self._available = available
        self._mine = allotment.read(run) or Allotment(run, time.time_ns(), wanted)
        self._crowded_since: Optional[float] = None

    def look(self) -> Tuple[List[Gpu], str]:
        """The run's GPUs once they are its own; until then none, and what it waits for."""
        try:
            return self._look()
        except OSError as error:  # a full disk, too many open files
            return [], self._reason(": %s" % (error.strerror or error))

    def _look(self) -> Tuple[List[Gpu], str]:
        mine = self._mine
        if allotment.read(mine.run) is None:
            allotment.write(mine)  # the file was removed: without it other runs would pass this one
        before = len(allotment.waiting(self._paths, before=mine))
        if before:
            return [], self._reason(", behind %d run%s" % (before, "" if before == 1 else "s"))
        taken = allotment.holders(self._paths, self._available, mine.run)
        if len(self._available) - len(set(taken) & set(map(allotment.name, self._available))) < mine.wanted:
            return [], self._reason(", held by %s" % ", ".join(sorted(set(taken.values()))))
        there = gpus.list_gpus()
        if not there:
            return [], self._reason(": the NVIDIA driver does not answer")
        enough = bool(allotment.choose(there, taken, mine.wanted, choosy=True))
        chosen = allotment.take(self._paths, mine, there, choosy=not self._has_waited_enough(enough))
        crowded = ["GPU %d" % gpu.number for gpu in there if allotment.is_crowded(gpu)]
        why = "" if enough else ": the memory of %s is in use by something that is not gpurun's" % ", ".join(crowded)
        return chosen, self._reason(why)

    def _has_waited_enough(self, enough: bool) -> bool:
        """Whether the run has waited for PATIENCE seconds for a GPU that nobody else uses."""
        if enough:
            self._crowded_since = None
        elif self._crowded_since is None:
            self._crowded_since = time.monotonic()
        return self._crowded_since is not None and time.monotonic() - self._crowded_since > PATIENCE

    def _reason(self, more: str = "") -> str:
        return "waiting for %d GPU%s%s" % (self._mine.wanted, "" if self._mine.wanted == 1 else "s", more)
