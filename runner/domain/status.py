"""What a run is doing, as the box told it. Parsed here, so that an absurd answer stops at the door."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

PHASES = ("prepared", "launched", "running", "finished")
MAX_PROGRESS = 5 << 20  # bytes of JSON: the last event of each type
MAX_GPUS = 64

OUTCOMES = ("succeeded", "failed", "cancelled", "timed_out", "interrupted", "lost")


@dataclass(frozen=True)
class Status:
    """Phase, outcome and cause of one run. ``progress`` is the last event of each type."""

    run_id: str
    phase: str
    outcome: str | None = None
    cause: str | None = None
    exit: dict[str, Any] | None = None
    orphaned: bool = False
    stalled: bool = False
    pid: int | None = None
    gpus: tuple[int, ...] = ()
    started_at: float | None = None
    ended_at: float | None = None
    now: float | None = None  # when this was true, by the box's clock as the two above
    progress: dict[str, Any] = field(default_factory=dict)
    log_size: int = 0
    generation: str = ""
    evidence: str | None = None  # the line that shows the cause
    advice: str | None = None  # the one thing to change

    @property
    def elapsed(self) -> float | None:
        """Seconds of the run so far: the box's clock alone, which may be hours away from ours."""
        until = self.ended_at or self.now
        return None if self.started_at is None or until is None else max(0.0, until - self.started_at)

    @property
    def finished(self) -> bool:
        return self.phase == "finished"

    def as_json(self) -> dict[str, Any]:
        """What a record keeps: only what was understood, none of what else the box may have sent."""
        return asdict(self)

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Status:
        """From an agent's answer. Raises ValueError naming the field that makes no sense."""
        phase, outcome = answer.get("phase"), answer.get("outcome")
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r:.200}")
        if outcome is not None and outcome not in OUTCOMES:
            raise ValueError(f"outcome {outcome!r:.200}")
        if (phase == "finished") != (outcome is not None):
            raise ValueError(f"phase {phase!r} with outcome {outcome!r}")
        return cls(
            run_id=_text(answer, "run_id") or "",
            phase=phase,
            outcome=outcome,
            cause=_text(answer, "cause"),
            exit=_exit(answer.get("exit")),
            orphaned=answer.get("orphaned") is True,
            stalled=answer.get("stalled") is True,
            pid=_whole(answer, "pid"),
            gpus=_gpus(answer.get("gpus")),
            started_at=_number(answer, "started_at"),
            ended_at=_number(answer, "ended_at"),
            now=_number(answer, "now"),
            progress=_progress(answer.get("progress")),
            log_size=_whole(answer, "log_size") or 0,
            generation=_text(answer, "generation") or "",
            evidence=_text(answer, "evidence"),
            advice=_text(answer, "advice"),
        )


def _exit(value: object) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    return {"kind": _text(value, "kind"), "number": _whole(value, "number"), "at": _number(value, "at")}


def _gpus(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        return ()
    return tuple(gpu for gpu in value[:MAX_GPUS] if isinstance(gpu, int) and not isinstance(gpu, bool))


def _progress(value: object) -> dict[str, Any]:
    """The last event of each type; anything that is not one is dropped. Raises ValueError for a flood."""
    if not isinstance(value, dict):
        return {}
    events = {kind: event for kind, event in value.items() if isinstance(event, dict)}
    if (size := len(json.dumps(events))) > MAX_PROGRESS:
        raise ValueError(f"progress of {size} bytes")
    return events


def _text(answer: dict[str, Any], name: str) -> str | None:
    value = answer.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} {value!r:.200}")
    return value[:4096] if value else None


def _number(answer: dict[str, Any], name: str) -> float | None:
    value = answer.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise ValueError(f"{name} {value!r:.200}")
    return float(value)


def _whole(answer: dict[str, Any], name: str) -> int | None:
    value = answer.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError(f"{name} {value!r:.200}")
    return value
