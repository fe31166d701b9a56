"""Which run has which GPU, and which runs wait for one: first come, first served. A GPU belongs to a run until its last process ends.

``gpus.json`` in the folder of each run holds how many it wants, its place in the queue, and the GPUs it was given. ``alive`` decides
whether it still waits or still has them, so that the GPUs of a killed supervisor are not free while its payload lives.
"""

import signal
from typing import Dict, List, NamedTuple, Optional, Tuple

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import alive, owner, slot
from remote_payload.agent.run.order import read_launch
from remote_payload.agent.run.slurm import files as slurm_files
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

VARIABLE = "GPURUN_GPUS"  # in the environment of every process of a run: the names of its GPUs


class Allotment(NamedTuple):
    """How many GPUs a run wants, and the names of those it was given, none while it waits."""

    run: RunPaths
    place: int  # in the queue: a lower one came earlier
    wanted: int
    given: Tuple[str, ...] = ()


def name(gpu: Gpu) -> str:
    """The name of a GPU here: numbers change when one falls off the bus."""
    return gpu.uuid or str(gpu.number)


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
    if slurm_files.is_slurm(run):
        return ()  # of another machine, or Slurm deals this one's
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
    # Its supervisor removes ``gpus.json`` once it has looked at how the payload ended: a GPU that failed must not be given on before.
    is_ending = slot.read(run) is not None and read(run) is None
    if not is_ending and alive.is_supervised(run, box):
        return True
    return bool(alive.of(run, box).members)
