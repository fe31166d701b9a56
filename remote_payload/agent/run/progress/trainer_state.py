"""``trainer_state.json`` in the checkpoints of transformers' Trainer: every loss that it has logged, with its exact step."""

import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from remote_payload.agent.run.progress.dictionaries import Schedule
from remote_payload.agent.run.progress.told import MOST_FIELDS, Fields, Told, sort

NAME = "trainer_state.json"
DEPTH = 3  # folders below outputs/ in which a checkpoint may lie
MOST_FOLDERS = 500
LONGEST = 8 << 20  # bytes


class History(NamedTuple):
    """What one such file says."""

    schedule: Optional[Schedule]
    total: Fields  # the field ``total`` of an event, where it is known
    logged: List[Dict[str, Any]]  # in order, each with its step

    def after(self, step: int, most: int) -> List[Told]:
        """What was logged after a step, the newest ``most``."""
        chosen = [each for each in self.logged if each["step"] > step][-most:]
        told = [_told(each) for each in chosen]
        return [each._replace(step={**each.step, **self.total}) for each in told]


class States:
    """The states below a run's outputs. Those that were there before the run began are another run's."""

    def __init__(self, outputs: str) -> None:
        self._outputs = outputs
        self._known = dict(_find(outputs))

    def newest(self) -> Optional[History]:
        """The newest state, where it is one that was not there at the last look."""
        found = dict(_find(self._outputs))
        fresh = [path for path, changed in found.items() if self._known.get(path) != changed]
        self._known = found
        return read(max(fresh, key=lambda path: found[path])) if fresh else None


def read(path: str) -> Optional[History]:
    """What the file says; None where it is no such state, or not yet whole."""
    try:
        with open(path, "rb") as file:
            state = json.loads(file.read(LONGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        return None
    total = state.get("max_steps")
    logged = [each for each in history if isinstance(each, dict) and isinstance(each.get("step"), int)]
    return History(_schedule(state), {"total": total} if isinstance(total, int) and total > 0 else {}, logged)


def _told(entry: Dict[str, Any]) -> Told:
    numbers = list(entry.items())[:MOST_FIELDS]
    return sort(
        (name, repr(value))
        for name, value in numbers
        if isinstance(value, (int, float)) and "train_runtime" not in entry
    )


def _schedule(state: Dict[str, Any]) -> Optional[Schedule]:
    total, step, epoch, every = (state.get(name) for name in ("max_steps", "global_step", "epoch", "logging_steps"))
    whole = isinstance(total, int) and isinstance(step, int) and isinstance(every, int)
    if not whole or not isinstance(epoch, (int, float)) or not epoch > 0 or not step or not every or not total:
        return None
    return Schedule(total, step / epoch, every)


def _find(outputs: str) -> Iterator[Tuple[str, float]]:
    """The path of each state with the time of its last change."""
    seen = 0
    for folder, folders, names in os.walk(outputs):
        seen += 1
        if seen > MOST_FOLDERS:
            return
        if os.path.relpath(folder, outputs).count(os.sep) >= DEPTH - 1:
            folders[:] = []
        if NAME in names:
            path = os.path.join(folder, NAME)
            try:
                yield path, os.stat(path).st_mtime
            except OSError:  # deleted meanwhile
                continue
