"""``gpurun checkpoints``: those of a run on the box, and those on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from remote_payload.agent.run.checkpoints.listing import list_checkpoints, list_written
from remote_payload.agent.run.checkpoints.rule import rule_of_job
from runner.domain.answers.checkpoints import Listed
from runner.domain.answers.reading import Fields
from runner.domain.answers.verbs import Kept, read_checkpoints
from runner.domain.errors import AbsurdAnswer, HostError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.workflow.connect import connect_to_run
from runner.workflow.fetching.receipt import Receipt


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint, or the finished model (``best``). ``size`` in bytes; ``age`` in seconds, by the clock of the box; ``here``
    once this version of it was fetched."""

    name: str
    path: str
    step: int | None
    metrics: dict[str, float]
    size: int
    age: float | None
    resumable: bool
    here: bool
    on_box: bool


@dataclass(frozen=True)
class BeingWritten:
    """A checkpoint on the box that is not complete, and ``why``."""

    path: str
    step: int | None
    size: int
    age: float | None
    why: str


@dataclass(frozen=True)
class Checkpoints:
    """Those of one run. ``complete``: the oldest first, the finished model last."""

    complete: list[Checkpoint]
    unfinished: list[BeingWritten]


def checkpoints(run: Run, report: Reporter) -> Checkpoints:
    """All of them. What is here alone is listed when the box cannot be reached."""
    here = listed_here(run)
    try:
        with connect_to_run(run, report) as link:
            there = link.agent.all_checkpoints(run.run_id)
    except AbsurdAnswer:
        raise
    except HostError as error:
        if not here:
            raise
        report.warn(f"{error.message}; these are the fetched ones")
        there = Listed({}, (), time.time())
    found = [_there(each, there.now, here) for each in there.complete.values()]
    on_box = {each.name for each in found if each.here}
    found += [_only_here(each, there.now) for name, each in here.items() if name not in on_box]
    unfinished = [
        BeingWritten(each.path, each.step, each.size, _age(each.at, there.now), each.why) for each in there.unfinished
    ]
    return Checkpoints(sorted(found, key=_place), unfinished)


def _place(each: Checkpoint) -> tuple[bool, bool, str, float]:
    """A recipe's checkpoints by name, others by age, the finished model last."""
    is_own = each.name == each.path
    return each.name == "best", is_own, "" if is_own else each.name, -(each.age or 0.0)


def metric_of(run: Run) -> str:
    """The metric that chooses the best checkpoint of this run."""
    return str(run.job.setting("evaluation", "metric") or "loss")


def fetched(run: Run) -> dict[str, Path]:
    """The folders of the checkpoints and the finished model that are on this machine, by name, oldest first."""
    outputs = run.outputs_here
    places = {"best": outputs / "models" / "best"}
    return {name: places.get(name, outputs / "checkpoints" / name) for name in _here(run)}


def listed_here(run: Run) -> dict[str, Kept]:
    """What was fetched of this run, by name."""
    return {**_here(run), **_own_here(run)}


def _here(run: Run) -> dict[str, Kept]:
    return listed_in(run.outputs_here)


def listed_in(outputs: Path) -> dict[str, Kept]:
    """The complete checkpoints and the finished model in a folder of fetched outputs, by name."""
    return read_checkpoints(Fields(list_checkpoints(str(outputs))))


def _own_here(run: Run) -> dict[str, Kept]:
    """Of a program of the user's own: the checkpoints of which every file was fetched, and is unchanged."""
    if not run.job.pushes_code:
        return {}
    receipt = Receipt(run.outputs_here)
    rule, others = rule_of_job(run.job.wire()), receipt.unsure()
    complete, _ = list_written(str(run.outputs_here), receipt.verified(), rule, is_running=False)
    listed = read_checkpoints(Fields({"checkpoints": complete, "best": None}))
    return {name: each for name, each in listed.items() if not _is_below(others, each.path)}


def _is_below(paths: Iterable[str], folder: str) -> bool:
    return any(path.startswith(f"{folder}/") for path in paths)


def _there(kept: Kept, now: float, here: dict[str, Kept]) -> Checkpoint:
    """One on the box. A program may write the same file again: then an older version is here."""
    own = here.get(kept.name)
    same = own is not None and (kept.name != kept.path or _version(own) == _version(kept))
    return _as_checkpoint(kept, now, here=same, on_box=True)


def _only_here(kept: Kept, now: float) -> Checkpoint:
    return _as_checkpoint(kept, now, here=True, on_box=False)


def _as_checkpoint(kept: Kept, now: float, *, here: bool, on_box: bool) -> Checkpoint:
    age = _age(kept.at, now)
    return Checkpoint(
        kept.name, kept.path, kept.step, kept.metrics, kept.size, age, kept.resumable, here=here, on_box=on_box
    )


def _version(kept: Kept) -> tuple[int, int]:
    """Size and time in whole seconds, which is what a copy keeps."""
    return kept.size, int(kept.at or 0)


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else max(0.0, now - at)
