"""One attempt at a job, as this laptop remembers it. The box is the truth; this is a cache and the way back to it."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from remote_payload.agent.paths import check_run_id

SCHEMA = 1
_STAMP = re.compile(r"-(\d{8}-\d{6})-[0-9a-f]{4}$")


@dataclass
class Run:
    """A run's record. ``status`` is the agent's last answer, seen at ``status_at`` (epoch seconds)."""

    run_id: str
    job_name: str
    job: dict[str, Any]
    job_file: str
    code_root: str  # absolute: what relative names in the job mean on this laptop
    host: str  # as typed; resolved again each time, since addresses change
    created_at: float
    address: str = ""  # as resolved when submitted, for display
    volume: str | None = None
    root: str | None = None  # $ROOT on the box, once known
    attempted: bool = False  # the launch was about to be asked for: the run may be there, whatever was heard
    launched: bool = False  # the box has confirmed the start
    parent: str | None = None  # the run this one resumes
    experiment: str | None = None
    status: dict[str, Any] = field(default_factory=dict)
    status_at: float | None = None
    fetched_at: float | None = (
        None  # when all outputs of the finished run were home; None after a fetch while it trained
    )
    fetched_into: str | None = None
    done: bool = False  # "safe to destroy" was said
    generation: str | None = None  # of the log that the local copy continues
    schema: int = SCHEMA

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Run:
        """From a record of this or an older gpurun; fields it does not know are ignored. Raises ValueError, KeyError or TypeError."""
        check_run_id(value["run_id"])
        if not isinstance(value["job"], dict) or not isinstance(value["created_at"], int | float):
            raise TypeError("job or created_at")
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        known["attempted"] = bool(value.get("attempted") or value.get("launched"))  # older ones noted only the latter
        return cls(**known)


def mint_id(job_name: str, now: float | None = None) -> str:
    """A new run id: the job's name, the local time, four random hex digits."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return check_run_id(f"{job_name[:48].rstrip('-')}-{stamp}-{secrets.token_hex(2)}")


def stamp_of(run_id: str) -> str:
    """The part of an id that sorts by time."""
    found = _STAMP.search(run_id)
    return found[1] if found else ""
