"""The checkpoints of a run: those on the box, and those that are here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remote_payload.agent.checkpoints import list_checkpoints
from runner.domain.errors import HostError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean
from runner.workflow.connect import to_run


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def checkpoints(run: Run, report: Reporter) -> list[Checkpoint]:
    """All of them, oldest first, the finished model last. What is here alone is listed when the box cannot be reached."""
    here = _parse(list_checkpoints(run.fetched_into)) if run.fetched_into else {}
    try:
        with to_run(run, report) as link:
            there = _parse(link.agent.call("checkpoints", {"run_id": run.run_id}))
    except HostError as error:
        if not here:
            raise
        report.warn(f"{error.message}; these are the fetched ones")
        there = {}
    names = sorted(here | there, key=lambda name: (name == "best", name))
    return [_merge(name, here.get(name), there.get(name)) for name in names]


def fetched(run: Run) -> dict[str, Path]:
    """The folders of the checkpoints and the finished model that are on this machine, by name, oldest first."""
    if not run.fetched_into:
        return {}
    outputs = Path(run.fetched_into)
    places = {"best": outputs / "models" / "best"}
    names = _parse(list_checkpoints(run.fetched_into))
    return {name: places.get(name, outputs / "checkpoints" / name) for name in names}


def _merge(name: str, here: dict[str, Any] | None, there: dict[str, Any] | None) -> Checkpoint:
    facts = there or here or {}
    return Checkpoint(
        name=name,
        step=facts["step"],
        metrics=facts["metrics"],
        size=facts["size"],
        resumable=facts["resumable"],
        here=here is not None,
        on_box=there is not None,
    )


def _parse(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name; what makes no sense is left out, since a box may say anything."""
    listed = answer.get("checkpoints")
    entries = [*(listed if isinstance(listed, list) else []), answer.get("best")]
    found = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            found[clean(entry["name"], 60)] = {
                "step": entry["step"] if isinstance(entry.get("step"), int) else None,
                "metrics": _metrics(entry.get("metrics")),
                "size": entry["size"] if isinstance(entry.get("size"), int) else 0,
                "resumable": entry.get("resumable") is True,
            }
    return found


def _metrics(value: Any) -> dict[str, float]:
    named = value.items() if isinstance(value, dict) else ()
    return {clean(name, 60): float(number) for name, number in named if isinstance(number, int | float)}
