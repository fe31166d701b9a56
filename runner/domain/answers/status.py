"""What a run is doing, as its box answered: every field checked before anything uses it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from remote_payload.agent.wire.paths import RUN_ID
from remote_payload.agent.wire.protocol import SLOT_KINDS
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    boolean,
    harmless,
    list_of,
    mapping_of,
    matching,
    one_of,
    optional,
    shown,
    text,
    time_in_seconds,
    whole,
    whole_between,
)

PHASES = ("prepared", "launched", "running", "finished")
MAX_PROGRESS = 5 << 20  # bytes of JSON: the last event of each type
MAX_EVENTS = 256  # types
MAX_GPUS = 64

OUTCOMES = ("succeeded", "failed", "cancelled", "timed_out", "interrupted", "lost")


# The last event of each type, by type. What is in an event was written by the payload: numbers, text, lists, objects.
Events = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Exit:
    """How the payload ended: ``kind`` as in the exit slot, with the exit code or signal, at epoch seconds of the box."""

    kind: str
    number: int
    at: float


@dataclass(frozen=True)
class Status:
    """Phase, outcome and cause of one run. ``progress`` is the last event of each type."""

    run_id: str
    phase: str
    outcome: str | None = None
    cause: str | None = None
    exit: Exit | None = None
    orphaned: bool = False
    stalled: bool = False
    pid: int | None = None
    gpus: tuple[int, ...] = ()
    started_at: float | None = None
    ended_at: float | None = None
    now: float | None = None  # when this was true, by the box's clock as the two above
    progress: Events = field(default_factory=dict)
    log_size: int = 0
    generation: str = ""
    evidence: str | None = None  # the line that shows the cause
    advice: str | None = None  # the one thing to change

    @property
    def finished(self) -> bool:
        return self.phase == "finished"

    def as_json(self) -> dict[str, object]:
        """As a record keeps it: the fields that were checked, and nothing else that the box may have sent."""
        return asdict(self)

    @classmethod
    def parse(cls, answer: object) -> Status:
        """From an agent's answer. Raises Impossible naming the wrong field."""
        fields = Fields(answer)
        phase, outcome = fields("phase", one_of(PHASES)), fields("outcome", optional(one_of(OUTCOMES)))
        if (phase == "finished") != (outcome is not None):
            raise Impossible(f"{shown(outcome)} in the phase {phase}", "outcome")
        return cls(
            run_id=fields("run_id", matching(RUN_ID)),
            phase=phase,
            outcome=outcome,
            cause=fields("cause", optional(text)) or None,
            exit=fields("exit", optional(_exit)),
            orphaned=fields("orphaned", boolean),
            stalled=fields("stalled", boolean),
            pid=fields("pid", optional(whole)),
            gpus=fields("gpus", list_of(whole_between(0, 1023), MAX_GPUS)),
            started_at=fields("started_at", optional(time_in_seconds)),
            ended_at=fields("ended_at", optional(time_in_seconds)),
            now=fields("now", optional(time_in_seconds)),
            progress=fields("progress", _progress),
            log_size=fields("log_size", whole),
            generation=fields("generation", text),
            evidence=fields("evidence", optional(text)) or None,
            advice=fields("advice", optional(text)) or None,
        )

    @classmethod
    def of_record(cls, value: object) -> Status | None:
        """From a run's record of this or an older gpurun; None where nothing was seen. Raises Impossible."""
        if value is None or value == {}:
            return None
        blank = {"orphaned": False, "stalled": False, "gpus": [], "progress": {}, "log_size": 0, "generation": ""}
        return cls.parse({**blank, **value} if isinstance(value, dict) else value)


def _exit(value: object) -> Exit:
    fields = Fields(value)
    return Exit(fields("kind", one_of(SLOT_KINDS)), fields("number", whole), fields("at", time_in_seconds))


def _progress(value: object) -> Events:
    """The last event of each type, its text without control sequences. Raises Impossible for more than MAX_PROGRESS bytes."""
    cleaned = mapping_of(harmless, MAX_EVENTS)(value)
    events = {kind: event for kind, event in cleaned.items() if isinstance(event, dict)}
    if (size := len(json.dumps(events))) > MAX_PROGRESS:
        raise Impossible(f"events of {size} bytes")
    return events
