"""The runs that a restart of the box or its container has interrupted, in the order in which they had their turn."""

import os
from typing import Dict, List, NamedTuple, Optional, Tuple

from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import owner, slot, state
from remote_payload.agent.run.alive import Box
from remote_payload.agent.run.order import read_launch
from remote_payload.agent.run.queue import allotment
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

RAN, WAITED = "running", "waiting"


class Interrupted(NamedTuple):
    """One run: what it did when it was interrupted, and the run that has taken its place since."""

    run: RunPaths
    was: str  # RAN: its program had begun; WAITED: for a GPU
    successor: Optional[str]


def in_order(paths: BoxPaths, box: Optional[Box] = None) -> List[Interrupted]:
    """First those that ran, by when they began; then those that waited, by their place in the queue."""
    box = box or Box()
    runs = runs_newest_first(paths)
    interrupted = [run for run in runs if is_interrupted(run, box)]
    successors = _successors(runs, box) if interrupted else {}
    found = [(_turn(run), Interrupted(run, _what_it_did(run), successors.get(run.run_id))) for run in interrupted]
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def is_interrupted(run: RunPaths, box: Box) -> bool:
    """Whether it was neither over nor is alive, and the box or its container was restarted since it was started."""
    if slot.read(run) is not None:
        return False
    return state.derive(state.collect(run, box))["outcome"] == "interrupted"


def _what_it_did(run: RunPaths) -> str:
    return RAN if slot.was_started(run) else WAITED


def _turn(run: RunPaths) -> Tuple[int, float, str]:
    recorded, mine = owner.read(run), allotment.read(run)
    if slot.was_started(run):
        return 0, (recorded.started_at if recorded else None) or 0.0, run.run_id
    return 1, float(mine.place if mine else _claimed_at(run)), run.run_id


def _claimed_at(run: RunPaths) -> int:
    """In nanoseconds as a place in the queue, for a run that waited for no GPU or whose place is lost: the launch wrote this file last."""
    try:
        return os.stat(run.launch).st_mtime_ns
    except OSError:
        return 0


def _successors(runs: List[RunPaths], box: Box) -> Dict[str, str]:
    """The run that took the place of each, by id. One that was claimed and never started has taken nobody's."""
    found = {}
    for run in runs:
        launch = read_launch(run)
        earlier = launch.continues if launch is not None else None
        if earlier and earlier not in found and state.derive(state.collect(run, box))["cause"] != "not_started":
            found[earlier] = run.run_id
    return found
