"""The wait of a queued run for its turn, for GPUs that are whole and free, and for room on the disk."""

import time
from typing import Dict, List, Optional, Tuple

from remote_payload.agent.box import gpus
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run.queue import allotment, giving, health, room
from remote_payload.agent.run.queue.allotment import Allotment, holders, name
from remote_payload.agent.run.queue.choice import Needs, choose, has_free_memory, is_crowded, is_large_enough
from remote_payload.agent.run.queue.health import Note
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

# Seconds that a run waits, when no other GPU is free, before it takes one whose memory somebody else's process uses. The run would
# probably run out of memory, and so would the next in the queue; but a small process that never ends (a notebook) must not block the queue.
PATIENCE = 600.0


class Waiting:
    """One look after another. ``available`` are the GPUs as they were when the wait began."""

    def __init__(self, paths: BoxPaths, run: RunPaths, available: List[Gpu], needs: Needs) -> None:
        self._paths = paths
        self._available = available
        self._needs = needs
        self._mine = allotment.read(run) or Allotment(run, time.time_ns(), needs.gpus)
        self._crowded_since: Optional[float] = None

    def look(self) -> Tuple[List[Gpu], str]:
        """The run's GPUs once they are its own; until then none, and what it waits for."""
        try:
            given, why = self._look()
        except OSError as error:  # a full disk, too many open files
            given, why = [], ": %s" % (error.strerror or error)
        wanted = self._needs.gpus
        return given, "waiting for %d GPU%s%s" % (wanted, "" if wanted == 1 else "s", why)

    def _look(self) -> Tuple[List[Gpu], str]:
        mine = self._mine
        if allotment.read(mine.run) is None:
            allotment.write(mine)  # the file was removed: without it other runs would pass this one
        before = len(allotment.waiting(self._paths, before=mine))
        if before:
            return [], ", behind %d run%s" % (before, "" if before == 1 else "s")
        taken, aside = holders(self._paths, self._available, mine.run), health.set_aside(self._paths)
        usable = [gpu for gpu in self._available if is_large_enough(gpu, self._needs) and name(gpu) not in aside]
        if sum(name(gpu) not in taken for gpu in usable) < self._needs.gpus:
            return [], self._what_is_not_free(taken, aside)
        short = room.lacking(self._paths, mine.run, self._needs, set(taken.values()))
        if short:
            return [], ": " + short
        there = gpus.list_gpus()
        if not there:
            return [], ": the NVIDIA driver does not answer"
        return self._take(there, {*taken, *aside})

    def _take(self, there: List[Gpu], taken: "set[str]") -> Tuple[List[Gpu], str]:
        """The GPUs of those that answer, and why there are none."""
        enough = bool(choose(there, taken, self._needs, choosy=True))
        choosy = not self._has_waited_enough(enough)
        fitting = [gpu for gpu in there if is_large_enough(gpu, self._needs) and name(gpu) not in taken]
        roomy = [
            gpu for gpu in fitting if has_free_memory(gpu, self._needs)
        ]  # on the others it would run out of memory
        chosen = giving.take(self._paths, self._mine, roomy, self._needs, choosy=choosy)
        if enough:
            return chosen, ""
        silent = sorted(set(map(name, self._available)) - taken - set(map(name, there)))
        if silent:
            numbers = ["GPU %d" % gpu.number for gpu in self._available if name(gpu) in silent]
            return chosen, ": %s does not answer" % ", ".join(numbers)
        crowded = ["GPU %d" % gpu.number for gpu in fitting if gpu not in roomy or is_crowded(gpu)]
        return chosen, ": the memory of %s is in use by something that is not gpurun's" % ", ".join(crowded)

    def _what_is_not_free(self, taken: Dict[str, str], aside: Dict[str, Note]) -> str:
        unusable = [aside[name(gpu)] for gpu in self._available if name(gpu) in aside]
        held = ", held by %s" % ", ".join(sorted(set(taken.values()))) if taken else ""
        told = "; ".join(note.in_words() for note in unusable)
        if unusable and len(self._available) - len(unusable) < self._needs.gpus:  # no end of a run would help
            return ": %s. %s" % (told, giving.how_to_use_again(unusable[0]))
        return held + ("; %s" % told if unusable else "")

    def _has_waited_enough(self, enough: bool) -> bool:
        """Whether the run has waited for PATIENCE seconds for a GPU that nobody else uses."""
        if enough:
            self._crowded_since = None
        elif self._crowded_since is None:
            self._crowded_since = time.monotonic()
        return self._crowded_since is not None and time.monotonic() - self._crowded_since > PATIENCE
