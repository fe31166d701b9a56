"""GPUs that are set aside because they fail. Two different runs, one after the other, that ended with a device error within a minute of
their start: then no run is given the GPU any more, until the box or its container is restarted or ``gpurun hosts use-gpu`` ends it.

A device error is one that the driver or the hardware reports whatever the program does (the cause ``gpu_broken``). A run that lasted, or
ended well, shows that the GPU works: what failed before it does not count.
``$ROOT/gpus/<name>.json`` holds what is known of a GPU. The supervisor of a run writes it before it gives the GPU back.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json, remove_quietly, write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run import alive
from remote_payload.agent.run.queue.allotment import name
from remote_payload.agent.wire.paths import BoxPaths

DEVICE_ERROR = "gpu_broken"  # the cause, of ``causes.py``
SOON = 60.0  # seconds after its start within which a run must have failed
RUNS = 2  # that failed one after the other


class Note(NamedTuple):
    """What is known of a GPU that failed: the last runs that it failed, the last one's line of the log, when it was set aside."""

    name: str
    number: int
    runs: Tuple[str, ...]
    evidence: str
    set_aside_at: Optional[float]  # epoch seconds
    boot_id: Optional[str]  # of the kernel then, and the start of PID 1: another one means that the box was restarted
    first_start: Optional[int]

    def in_words(self) -> str:
        """One line for a person."""
        return "GPU %d is set aside: %s failed on it at once (%s)" % (
            self.number,
            " and ".join(self.runs),
            self.evidence or "a device error",
        )


def set_aside(paths: BoxPaths) -> Dict[str, Note]:
    """The GPUs that are not given to runs now, by name."""
    box = alive.Box()
    notes = [note for note in map(_read, _files(paths)) if note is not None and note.set_aside_at is not None]
    return {note.name: note for note in notes if not box.restarted_since(note)}


class End(NamedTuple):
    """How a run ended: the ``cause`` of its failure, how many seconds after its start, and the line of its log that shows the cause."""

    run_id: str
    succeeded: bool
    cause: Optional[str]
    after: float
    evidence: str


def note_end(paths: BoxPaths, given: List[Gpu], end: End) -> List[Note]:
    """Writes down what the end of a run shows of its GPUs; gives those that are set aside by it. Raises OSError."""
    if end.succeeded or end.after > SOON:
        for gpu in given:
            _forget_failures(_file(paths, name(gpu)))
    elif end.cause == DEVICE_ERROR:
        return [note for note in (_note_failure(paths, gpu, end) for gpu in given) if note.set_aside_at is not None]
    return []


def use_again(paths: BoxPaths, number: int) -> bool:
    """Ends that the GPU of this number is set aside; whether it was."""
    found = [note for note in set_aside(paths).values() if note.number == number]
    for note in found:
        os.unlink(_file(paths, note.name))
    return bool(found)


def _note_failure(paths: BoxPaths, gpu: Gpu, end: End) -> Note:
    before = _read(_file(paths, name(gpu)))
    if before is not None and alive.Box().restarted_since(before):
        before = None
    runs = (*(each for each in (before.runs if before else ()) if each != end.run_id), end.run_id)[-RUNS:]
    at = time.time() if len(runs) == RUNS else None
    note = Note(name(gpu), gpu.number, runs, end.evidence, at, processes.boot_id(), processes.first_start())
    os.makedirs(paths.gpus, 0o700, exist_ok=True)
    write_json(_file(paths, note.name), note._asdict())
    return note


def _forget_failures(path: str) -> None:
    """Removes the note of a GPU that works. A run that began before the GPU was set aside does not end that."""
    note = _read(path)
    if note is not None and note.set_aside_at is None:
        remove_quietly(path)


def _file(paths: BoxPaths, gpu: str) -> str:
    return os.path.join(paths.gpus, re.sub(r"[^A-Za-z0-9.-]", "_", gpu)[:100] + ".json")


def _files(paths: BoxPaths) -> List[str]:
    try:
        return [os.path.join(paths.gpus, each) for each in sorted(os.listdir(paths.gpus)) if each.endswith(".json")]
    except OSError:
        return []


def _read(path: str) -> Optional[Note]:
    """What is known of a GPU, None where the file is missing or damaged."""
    value = read_json(path) or {}
    gpu, number, runs = value.get("name"), value.get("number"), value.get("runs")
    if not isinstance(gpu, str) or not isinstance(number, int) or not isinstance(runs, list):
        return None
    names = tuple(each for each in runs if isinstance(each, str))
    evidence, at = value.get("evidence"), value.get("set_aside_at")
    return Note(
        gpu,
        number,
        names,
        evidence if isinstance(evidence, str) else "",
        float(at) if isinstance(at, (int, float)) else None,
        _if(str, value.get("boot_id")),
        _if(int, value.get("first_start")),
    )


def _if(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else None
