"""All that is on a box of gpurun's making and would go with it, as the box itself told it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remote_payload.agent.paths import check_run_id
from runner.domain.status import Status
from runner.domain.terminal import clean

MAX_RUNS = 100_000


@dataclass(frozen=True)
class Held:
    """One run's folder on the box. ``left`` are processes of the run that live, in words."""

    root: str
    status: Status
    left: tuple[str, ...]

    @property
    def run_id(self) -> str:
        return self.status.run_id

    @property
    def going(self) -> bool:
        """Whether it is not over, or processes of it are left."""
        return not self.status.finished or bool(self.left)


@dataclass(frozen=True)
class Push:
    """Code or data under ``incoming/`` that no run took. ``run_id`` is None where the name says nothing."""

    root: str
    name: str
    run_id: str | None


@dataclass(frozen=True)
class Holdings:
    """``homeless`` are runs that live without a folder: their processes in words, by id."""

    runs: tuple[Held, ...]
    pushes: tuple[Push, ...]
    homeless: dict[str, tuple[str, ...]]

    def run(self, run_id: str) -> Held | None:
        return next((held for held in self.runs if held.run_id == run_id), None)

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Holdings:
        """From an agent's answer. Raises ValueError for one that makes no sense: nothing can be proven with it."""
        return cls(
            tuple(Held(_text(entry, "root"), _status(entry), _left(entry)) for entry in _entries(answer, "runs")),
            tuple(
                Push(_text(entry, "root"), _text(entry, "name"), _run_id(entry)) for entry in _entries(answer, "pushes")
            ),
            {check_run_id(entry.get("run_id")): _left(entry) for entry in _entries(answer, "homeless")},
        )


def _entries(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = answer.get(name)
    if (
        not isinstance(entries, list)
        or len(entries) > MAX_RUNS
        or not all(isinstance(entry, dict) for entry in entries)
    ):
        raise ValueError(f"{name} is no list of {name}")
    return entries


def _status(entry: dict[str, Any]) -> Status:
    answer = entry.get("status")
    if not isinstance(answer, dict):
        raise ValueError("a run without a status")
    check_run_id(answer.get("run_id"))
    return Status.parse(answer)


def _left(entry: dict[str, Any]) -> tuple[str, ...]:
    left = entry.get("left")
    if not isinstance(left, list):
        raise ValueError("a run without its processes")
    return tuple(
        f"{clean(each.get('pid'), 20)} ({clean(each.get('command'), 60)})" for each in left if isinstance(each, dict)
    )


def _run_id(entry: dict[str, Any]) -> str | None:
    return None if entry.get("run_id") is None else check_run_id(entry["run_id"])


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} {value!r:.200}")
    return value
