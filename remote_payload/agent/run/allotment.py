"""Which run has which GPU, and which runs wait for one: first come, first served. A GPU belongs to a run until its last process ends.

``gpus.json`` in the folder of each run holds how many it wants, its place in the queue, and the GPUs it was given. ``alive`` decides
whether it still waits or still has them, so that the GPUs of a killed supervisor are not free while its payload lives.
Decisions are made one at a time, under a lock. Where two are made at once all the same (the lock's file was removed under its holder),
each run checks again after it has written down its GPUs, and gives them back where another run has written the same.
"""

import os
import signal
import time
from contextlib import contextmanager
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from remote_payload.agent.box import gpus, locks, processes
from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import alive, owner, slot
from remote_payload.agent.run.order import read_launch
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

VARIABLE = "GPURUN_GPUS"  # in the environment of every process of a run: the names of its GPUs
LIMIT = 30.0  # seconds that a submission waits for the lock
TURN_LIMIT = 1.0  # seconds that the first run of the queue does
CROWDED = 10  # a GPU is crowded when more than a tenth of its memory is in use: a desktop takes less, training more
# Seconds that a run waits, when no other GPU is free, before it takes one whose memory somebody else's process uses. The run would
# probably run out of memory, and so would the next in the queue; but a small process that never ends (a notebook) must not block the queue.
PATIENCE = 600.0


class Allotment(NamedTuple):
    """How many GPUs a run wants, and the names of those it was given, none while it waits."""

    run: RunPaths
    place: int  # in the queue: a lower one came earlier
    wanted: int
    given: Tuple[str, ...] = ()


def name(gpu: Gpu) -> str:
    """The name of a GPU here: numbers change when one falls off the bus."""
    return gpu.uuid or str(gpu.number)


def is_crowded(gpu: Gpu) -> bool:
    """Whether more than a tenth of its memory is in use: where no run has it, by somebody else's process, or by one that is just ending."""
    return gpu.memory_used > gpu.memory_total // CROWDED


def read(run: RunPaths) -> Optional[Allotment]:
    """A run's allotment, None when it has none or the file is damaged."""
    value = read_json(run.gpus) or {}
    place, wanted, given = value.get("place"), value.get("wanted"), value.get("given")
    if not isinstance(place, int) or not isinstance(wanted, int) or not isinstance(given, list):
        return None
    return Allotment(run, place, wanted, tuple(each for each in given if isinstance(each, str)))


def write(mine: Allotment) -> None:
    """Raises OSError."""
    write_json(mine.run.gpus, {"place": mine.place, "wanted": mine.wanted, "given": mine.given})


def enter(paths: BoxPaths, run: RunPaths, available: List[Gpu], wanted: int, queue: bool) -> List[Gpu]:
    """Gives a run its GPUs, or (``queue``) a place in the queue, which never changes afterwards: the list is empty then.

    Without ``queue`` a crowded GPU is given if there is no other. Raises AgentError GpuBusy.
    """
    with _deciding(paths, LIMIT) as locked:
        if not locked:
            raise AgentError("GpuBusy", "other submissions have been choosing GPUs for half a minute", "Submit again.")
        before = waiting(paths)
        mine = Allotment(run, max([time.time_ns(), *(each.place + 1 for each in before)]), wanted)
        taken = holders(paths, available)
        chosen = [] if before else choose(available, taken, wanted, choosy=queue)
        if chosen and not _settle(paths, mine, chosen, available):
            chosen = []
        if not chosen and not queue:
            raise _busy(available, wanted, before, taken)
        if not chosen:
            write(mine)
    return chosen


def take(paths: BoxPaths, mine: Allotment, available: List[Gpu], choosy: bool) -> List[Gpu]:
    """The GPUs that a waiting run gets now; none when it is not its turn, too few are free, or another decision is being made."""
    if waiting(paths, before=mine):
        return []  # checked before the lock is taken: of all that wait, only the first may keep it from others
    with _deciding(paths, TURN_LIMIT) as locked:
        if not locked or waiting(paths, before=mine):
            return []
        chosen = choose(available, holders(paths, available, mine.run), mine.wanted, choosy)
        return chosen if chosen and _settle(paths, mine, chosen, available) else []


def choose(available: List[Gpu], taken: Dict[str, str], wanted: int, choosy: bool) -> List[Gpu]:
    """``wanted`` of the GPUs that no run has, none when there are too few; crowded ones last, or (``choosy``) not at all."""
    free = [gpu for gpu in available if name(gpu) not in taken]
    idle = [gpu for gpu in free if not is_crowded(gpu)]
    pool = idle if choosy else idle + [gpu for gpu in free if is_crowded(gpu)]
    return sorted(pool[:wanted]) if len(pool) >= wanted else []


def waiting(paths: BoxPaths, before: Optional[Allotment] = None) -> List[Allotment]:
    """The runs that wait for this box's GPUs, in their order; only those before the run ``before``, if it is given."""
    found = [each for each in map(read, runs_newest_first(paths)) if each is not None and not each.given]
    if before is not None:
        found = [each for each in found if _turn(each) < _turn(before)]
    box = alive.Box()
    living = [
        each
        for each in found
        if slot.read(each.run) is None
        and alive.is_supervised(each.run, box)
        and not box.is_elsewhere(each.run, owner.read(each.run))
    ]
    return sorted(living, key=_turn)


def wake_next(paths: BoxPaths) -> None:
    """Makes the first waiting run look for GPUs at once. Without it, each run would notice only at its own next look that its turn
    has come, and eight GPUs that became free together would be given to runs over several seconds.

    The signal is CHLD, because supervisors of every version block it. A supervisor that misses it looks every half second anyway.
    """
    try:
        for first in waiting(paths)[:1]:
            supervisor = alive.Box().recorded_supervisor(owner.read(first.run))
            if supervisor is not None:
                processes.send(supervisor, signal.SIGCHLD)
    except OSError:  # too many open files, or its supervisor is another user's
        pass


def _turn(each: Allotment) -> Tuple[int, str]:
    return each.place, each.run.run_id


def holders(paths: BoxPaths, available: List[Gpu], spare: Optional[RunPaths] = None) -> Dict[str, str]:
    """The run that has each GPU, by the GPU's name, without the run ``spare``. A run has its GPUs until its last process ends.

    Runs below another root and runs without a folder are found by their processes, which have the names of the GPUs in VARIABLE.
    """
    box = alive.Box()
    names = {str(gpu.number): name(gpu) for gpu in available}
    found: Dict[str, str] = {}
    seen = {spare.run_id} if spare else set()
    for run in runs_newest_first(paths):
        given = _given(run, names, box) if run.run_id not in seen else ()
        if given:
            seen.add(run.run_id)
            if _still_has(run, box):
                found.update(dict.fromkeys(given, run.run_id))
    for run_id in set(box.marked()) - seen:
        for pid in box.marked()[run_id]:
            found.update(dict.fromkeys((processes.variable(pid, VARIABLE) or "").split(), run_id))
    return found


def _given(run: RunPaths, names: Dict[str, str], box: alive.Box) -> Tuple[str, ...]:
    """The GPUs that a run was given, by name: from ``gpus.json``, else from ``owner.json``, else from its processes.

    Where none of these names them, a live run that wants GPUs may have any of them: it counts as having all.
    """
    mine = read(run)
    if mine is not None:
        return mine.given
    recorded = owner.read(run)
    if recorded is not None:
        return tuple(names[str(number)] for number in recorded.gpus if str(number) in names)
    members = alive.of(run, box).members
    launch = read_launch(run)
    if not members or (launch is not None and launch.gpus == 0):
        return ()
    named = {each for process in members for each in (processes.variable(process.pid, VARIABLE) or "").split()}
    return tuple(sorted(named or names.values()))


def _still_has(run: RunPaths, box: alive.Box) -> bool:
    if slot.read(run) is None and alive.is_supervised(run, box):
        return True
    return bool(alive.of(run, box).members)


def _settle(paths: BoxPaths, mine: Allotment, chosen: List[Gpu], available: List[Gpu]) -> bool:
    given = tuple(map(name, chosen))
    write(mine._replace(given=given))
    if not set(given) & set(holders(paths, available, mine.run)):
        return True
    write(mine)
    return False


def _busy(available: List[Gpu], wanted: int, before: List[Allotment], taken: Dict[str, str]) -> AgentError:
    asked = "%d of %d GPUs asked for, but " % (wanted, len(available))
    if before:
        names = [each.run.run_id for each in before]
        return AgentError("GpuBusy", asked + "%s waits for GPUs" % ", ".join(names), "Submit with --queue to wait too.")
    names = sorted(set(taken.values())) or ["another run"]
    hint = "Wait for it, stop it (gpurun stop %s), or submit with --queue." % names[0]
    return AgentError("GpuBusy", asked + "held by %s" % ", ".join(names), hint)


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


class Waiting:
    """The wait of a queued run for its turn and its GPUs, one look after another. ``available`` are the GPUs as they were when it began."""

    def __init__(self, paths: BoxPaths, run: RunPaths, available: List[Gpu], wanted: int) -> None:
        self._paths = paths
        self._available = available
        self._mine = read(run) or Allotment(run, time.time_ns(), wanted)
        self._crowded_since: Optional[float] = None

    def look(self) -> Tuple[List[Gpu], str]:
        """The run's GPUs once they are its own; until then none, and what it waits for."""
        try:
            return self._look()
        except OSError as error:  # a full disk, too many open files
            return [], self._reason(": %s" % (error.strerror or error))

    def _look(self) -> Tuple[List[Gpu], str]:
        mine = self._mine
        if read(mine.run) is None:
            write(mine)  # the file was removed: without it other runs would pass this one
        before = len(waiting(self._paths, before=mine))
        if before:
            return [], self._reason(", behind %d run%s" % (before, "" if before == 1 else "s"))
        taken = holders(self._paths, self._available, mine.run)
        if len(self._available) - len(set(taken) & set(map(name, self._available))) < mine.wanted:
            return [], self._reason(", held by %s" % ", ".join(sorted(set(taken.values()))))
        there = gpus.list_gpus()
        if not there:
            return [], self._reason(": the NVIDIA driver does not answer")
        enough = bool(choose(there, taken, mine.wanted, choosy=True))
        chosen = take(self._paths, mine, there, choosy=not self._has_waited_enough(enough))
        crowded = ["GPU %d" % gpu.number for gpu in there if is_crowded(gpu)]
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
