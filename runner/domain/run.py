"""One attempt at a job, as this laptop remembers it. The box is the truth; this is a cache and the way back to it."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Sequence
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
    submission: str | None = None  # runs of one submission, and what resumes them, have it in common
    not_started: dict[str, Any] | None = None  # why its submission ended before a start: {cause, message, hint}
    status: dict[str, Any] = field(default_factory=dict)
    status_at: float | None = None
    fetched_at: float | None = (
        None  # when all outputs of the finished run were home; None after a fetch while it trained
    )
    fetched_into: str | None = None
    done: bool = False  # "safe to destroy" was said
    generation: str | None = None  # of the log that the local copy continues
    schema: int = SCHEMA

    @property
    def how_to_start(self) -> str:
        """What to type for one whose submission was cut off before its start."""
        return f"gpurun submit {shlex.quote(self.job_file)} --host {shlex.quote(self.host)} --run {self.run_id}"

    @property
    def may_be_there(self) -> bool:
        """Whether its box may know it: the launch was asked for, and not refused."""
        return self.launched or (self.attempted and not self.not_started)

    @property
    def why_not_started(self) -> str:
        """What ended its submission before the start, as it was said then; nothing for one that started or was cut off."""
        return str((self.not_started or {}).get("message") or "") if not self.launched else ""

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


def matching(name: str, ids: Sequence[str]) -> list[str]:
    """Which of these ids (oldest first) a name means: itself, the newest of a job, else all that begin or end so."""
    if name in ids:
        return [name]
    if of_job := [run_id for run_id in ids if (found := _STAMP.search(run_id)) and run_id[: found.start()] == name]:
        return of_job[-1:]
    return [run_id for run_id in ids if name and (run_id.startswith(name) or run_id.endswith(f"-{name}"))]


def stamp_of(run_id: str) -> str:
    """The part of an id that sorts by time."""
    found = _STAMP.search(run_id)
    return found[1] if found else ""
