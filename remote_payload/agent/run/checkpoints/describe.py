"""A checkpoint of a program of the user's own as ``gpurun checkpoints`` lists it. Only JSON is read of it, nothing is unpickled."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Any, Dict, Optional

from remote_payload.agent.box.files import read_json
from remote_payload.agent.run.checkpoints.complete import Judged
from remote_payload.agent.run.checkpoints.forms import TRAINER_STATE, Unit
from remote_payload.agent.wire.fields import is_number, is_whole

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Checkpoint, Unfinished

LARGEST = 1 << 48  # of a step, and of a file's bytes
FARTHEST = 1e300


def describe(outputs: str, judged: Judged) -> Checkpoint:
    """A complete one. Its name is its path; ``at`` is when a file of it was last written."""
    unit = judged.unit
    state = _trainer_state(outputs, unit)
    step = whole(state.get("global_step"))
    return {
        "name": unit.path,
        "path": unit.path,
        "step": unit.step if step is None else step,
        "metrics": _logged(state, step),
        "size": _size(judged),
        "resumable": _is_resumable(unit, bool(state)),
        "at": _written_at(judged),
    }


def describe_unfinished(judged: Judged) -> Unfinished:
    """One that is not complete, and why."""
    return {
        "path": judged.unit.path,
        "step": judged.unit.step,
        "size": _size(judged),
        "at": _written_at(judged),
        "why": judged.why or "",
    }


def whole(value: Any) -> Optional[int]:
    """A whole number from 0 on, None for anything else."""
    return value if is_whole(value) and 0 <= value <= LARGEST else None


def numbers(metrics: Any) -> Dict[str, float]:
    """The metrics that are finite numbers: a run that diverged has others."""
    named = metrics.items() if isinstance(metrics, dict) else ()
    return {str(name)[:100]: value for name, value in named if is_number(value) and -FARTHEST <= value <= FARTHEST}


def _trainer_state(outputs: str, unit: Unit) -> Dict[str, Any]:
    return (read_json(os.path.join(outputs, unit.path, TRAINER_STATE)) or {}) if unit.is_folder else {}


def _logged(state: Dict[str, Any], step: Optional[int]) -> Dict[str, float]:
    """What the Trainer logged at the checkpoint's step: ``loss``, ``eval_loss`` and others."""
    found: Dict[str, float] = {}
    history = state.get("log_history")
    for entry in history if isinstance(history, list) else ():
        if isinstance(entry, dict) and step is not None and entry.get("step") == step:
            found.update(numbers({name: value for name, value in entry.items() if name != "step"}))
    return found


def _is_resumable(unit: Unit, is_trainers: bool) -> bool:
    """Whether training may go on from it: not from weights alone, as the Trainer keeps them without ``optimizer.pt`` and at its end."""
    if is_trainers:
        return any(_is_optimizer(unit, path) for path in unit.files)
    return unit.is_folder or not unit.path.endswith(".safetensors")


def _is_optimizer(unit: Unit, path: str) -> bool:
    """Whether the Trainer goes on from this file: the optimizer's state, of DeepSpeed in a folder ``global_step…``."""
    within = posixpath.relpath(path, unit.path)
    return within.startswith(("optimizer", "global_step"))


def _size(judged: Judged) -> int:
    return sum(judged.state[path][2] for path in judged.unit.files if path in judged.state)


def _written_at(judged: Judged) -> Optional[float]:
    times = [judged.state[path][3] / 1e9 for path in judged.unit.files if path in judged.state]
    return max(times) if times else None
