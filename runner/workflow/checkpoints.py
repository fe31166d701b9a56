"""``gpurun checkpoints``: those of a run on the box, and those on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from remote_payload.agent.run.checkpoints.listing import list_checkpoints
from runner.domain.answers.reading import Fields
from runner.domain.answers.verbs import Kept, read_checkpoints
from runner.domain.errors import AbsurdAnswer, HostError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.workflow.connect import connect_to_run


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint, or the finished model (``best``). ``size`` in bytes; ``here`` once it was fetched."""

    name: str
    step: int | None
    metrics: dict[str, float]
    size: int
    resumable: bool
    here: bool
    on_box: bool


def checkpoints(run: Run, report: Reporter) -> list[Checkpoint]:
    """All of them, oldest first, the finished model last. What is here alone is listed when the box cannot be reached."""
    here = _here(run)
    try:
        with connect_to_run(run, report) as link:
            there = link.agent.checkpoints(run.run_id)
    except AbsurdAnswer:
        raise
    except HostError as error:
        if not here:
            raise
        report.warn(f"{error.message}; these are the fetched ones")
        there = {}
    names = sorted(here | there, key=lambda name: (name == "best", name))
    return [_merge(name, here.get(name), there.get(name)) for name in names]


def metric_of(run: Run) -> str:
    """The metric that chooses the best checkpoint of this run."""
    return str(run.job.setting("evaluation", "metric") or "loss")


def fetched(run: Run) -> dict[str, Path]:
    """The folders of the checkpoints and the finished model that are on this machine, by name, oldest first."""
    if not run.fetched_into:
        return {}
    outputs = Path(run.fetched_into)
    places = {"best": outputs / "models" / "best"}
    return {name: places.get(name, outputs / "checkpoints" / name) for name in _here(run)}


def _here(run: Run) -> dict[str, Kept]:
    return listed_in(Path(run.fetched_into)) if run.fetched_into else {}


def listed_in(outputs: Path) -> dict[str, Kept]:
    """The complete checkpoints and the finished model in a folder of fetched outputs, by name."""
    return read_checkpoints(Fields(list_checkpoints(str(outputs))))


def _merge(name: str, here: Kept | None, there: Kept | None) -> Checkpoint:
    facts = there or here
    assert facts is not None
    return Checkpoint(
        name=name,
        step=facts.step,
        metrics=facts.metrics,
        size=facts.size,
        resumable=facts.resumable,
        here=here is not None,
        on_box=there is not None,
    )
