"""What a run is doing, as the box told it. Parsed here, so that an absurd answer stops at the door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PHASES = ("prepared", "launched", "running", "finished")
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
    progress: dict[str, Any] = field(default_factory=dict)
    log_size: int = 0
    generation: str = ""
    evidence: str | None = None

    @property
    def finished(self) -> bool:
        return self.phase == "finished"

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Status:
        """From an agent's answer. Raises ValueError naming the field that makes no sense."""
        phase, outcome = answer.get("phase"), answer.get("outcome")
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r}")
        if outcome is not None and outcome not in OUTCOMES:
            raise ValueError(f"outcome {outcome!r}")
        if (phase == "finished") != (outcome is not None):
            raise ValueError(f"phase {phase!r} with outcome {outcome!r}")
        progress = answer.get("progress")
        return cls(
            run_id=_text(answer, "run_id") or "",
            phase=phase,
            outcome=outcome,
            cause=_text(answer, "cause"),
            exit=answer["exit"] if isinstance(answer.get("exit"), dict) else None,
            orphaned=answer.get("orphaned") is True,
            stalled=answer.get("stalled") is True,
            pid=_whole(answer, "pid"),
            gpus=tuple(gpu for gpu in answer.get("gpus") or () if isinstance(gpu, int)),
            started_at=_number(answer, "started_at"),
            ended_at=_number(answer, "ended_at"),
            progress=progress if isinstance(progress, dict) else {},
            log_size=_whole(answer, "log_size") or 0,
            generation=_text(answer, "generation") or "",
            evidence=_text(answer, "evidence"),
        )


def _text(answer: dict[str, Any], name: str) -> str | None:
    value = answer.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} {value!r}")
    return value[:4096] if value else None


def _number(answer: dict[str, Any], name: str) -> float | None:
    value = answer.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise ValueError(f"{name} {value!r}")
    return float(value)


def _whole(answer: dict[str, Any], name: str) -> int | None:
    value = answer.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError(f"{name} {value!r}")
    return value
