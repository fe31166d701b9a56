"""Gives GPUs to runs. Decisions are made one at a time, under a lock. Where two are made at once all the same (the lock's file was removed
under its holder), each run checks again after it has written down its GPUs, and gives them back where another run has written the same.
"""

import os
import time
from contextlib import contextmanager
from typing import Dict, Iterator, List

from remote_payload.agent.box import locks
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run.queue import allotment, health, room
from remote_payload.agent.run.queue.allotment import Allotment, holders, name, waiting
from remote_payload.agent.run.queue.choice import Needs, choose
from remote_payload.agent.run.queue.health import Note
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

LIMIT = 30.0  # seconds that a submission waits for the lock
TURN_LIMIT = 1.0  # seconds that the first run of the queue does


def enter(paths: BoxPaths, run: RunPaths, available: List[Gpu], needs: Needs, queue: bool) -> List[Gpu]:
    """Gives a run its GPUs, or (``queue``) a place in the queue, which never changes afterwards: the list is empty then.

    Without ``queue`` a crowded GPU is given if there is no other, and the disk is not looked at. Raises AgentError GpuBusy.
    """
    with _deciding(paths, LIMIT) as locked:
        if not locked:
            raise AgentError("GpuBusy", "other submissions have been choosing GPUs for half a minute", "Submit again.")
        before = waiting(paths)
        mine = Allotment(run, max([time.time_ns(), *(each.place + 1 for each in before)]), needs.gpus)
        taken, aside = holders(paths, available), health.set_aside(paths)
        chosen = [] if before else choose(available, {*taken, *aside}, needs, choosy=queue)
        if chosen and queue and room.lacking(paths, run, needs, set(taken.values())):
            chosen = []
        if chosen and not _settle(paths, mine, chosen, available):
            chosen = []
        if not chosen and not queue:
            raise _busy(available, needs.gpus, before, taken, aside)
        if not chosen:
            allotment.write(mine)
    return chosen


def take(paths: BoxPaths, mine: Allotment, available: List[Gpu], needs: Needs, choosy: bool) -> List[Gpu]:
    """The GPUs that a waiting run gets now; none when it is not its turn, too few are free, or another decision is being made."""
    if waiting(paths, before=mine):
        return []  # checked before the lock is taken: of all that wait, only the first may keep it from others
    with _deciding(paths, TURN_LIMIT) as locked:
        if not locked or waiting(paths, before=mine):
            return []
        taken = {*holders(paths, available, mine.run), *health.set_aside(paths)}
        chosen = choose(available, taken, needs, choosy)
        return chosen if chosen and _settle(paths, mine, chosen, available) else []


def _settle(paths: BoxPaths, mine: Allotment, chosen: List[Gpu], available: List[Gpu]) -> bool:
    given = tuple(map(name, chosen))
    allotment.write(mine._replace(given=given))
    if not set(given) & set(holders(paths, available, mine.run)):
        return True
    allotment.write(mine)
    return False


def _busy(
    available: List[Gpu], wanted: int, before: List[Allotment], taken: Dict[str, str], aside: Dict[str, Note]
) -> AgentError:
    asked = "%d of %d GPUs asked for, but " % (wanted, len(available))
    if before:
        names = [each.run.run_id for each in before]
        return AgentError("GpuBusy", asked + "%s waits for GPUs" % ", ".join(names), "Submit with --queue to wait too.")
    unusable = [aside[name(gpu)] for gpu in available if name(gpu) in aside]
    if unusable and not taken:
        message = asked + "; ".join(note.in_words() for note in unusable)
        return AgentError("GpuBusy", message, how_to_use_again(unusable[0]))
    names = sorted(set(taken.values())) or ["another run"]
    hint = "Wait for it, stop it (gpurun stop %s), or submit with --queue." % names[0]
    return AgentError("GpuBusy", asked + "held by %s" % ", ".join(names), hint)


def how_to_use_again(note: Note) -> str:
    """What ends that a GPU is set aside."""
    return "Restart the box, or if the GPU works again: gpurun hosts use-gpu HOST %d" % note.number


@contextmanager
def _deciding(paths: BoxPaths, limit: float) -> Iterator[bool]:
    """Whether this process has the lock for the length of the block; waits up to ``limit`` seconds for it."""
    os.makedirs(paths.locks, 0o700, exist_ok=True)
    descriptor = locks.take_within(locks.lock_file(os.path.join(paths.locks, "gpus")), limit)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)
