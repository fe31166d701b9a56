"""One attempt at a job, as this laptop remembers it. The box is the truth; this is a cache and the way back to it."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from remote_payload.agent.wire.paths import RUN_ID, check_run_id
from runner.domain.answers.box import box_root
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    absolute_path,
    boolean,
    list_of,
    mapping_of,
    measured,
    moment,
    optional,
    spelt,
    string,
    text,
    whole,
)
from runner.domain.answers.reading import matching as of_form
from runner.domain.answers.status import Status

SCHEMA = 1
_STAMP = re.compile(r"-(\d{8}-\d{6})-[0-9a-f]{4}$")


@dataclass
class Run:
    """A run's record. ``status`` is what the box said last, seen at ``status_at`` (epoch seconds)."""

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
    code: str = ""  # the digest of the code that it runs, once launched
    overrides: tuple[str, ...] = ()  # what --set gave, and of a sweep this run's own values
    parent: str | None = None  # the run this one resumes
    experiment: str | None = None
    submission: str | None = None  # runs of one submission, and what resumes them, have it in common
    not_started: dict[str, Any] | None = None  # why its submission ended before a start: {cause, message, hint}
    status: Status | None = None
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
        overrides = [f"--set {shlex.quote(each)}" for each in self.overrides]
        words = [shlex.quote(self.job_file), "--host", shlex.quote(self.host), *overrides, "--run", self.run_id]
        return " ".join(["gpurun submit", *words])

    @property
    def may_be_there(self) -> bool:
        """Whether its box may know it: the launch was asked for, and not refused."""
        return self.launched or (self.attempted and not self.not_started)

    @property
    def why_not_started(self) -> str:
        """What ended its submission before the start, as it was said then; nothing for one that started or was cut off."""
        return str((self.not_started or {}).get("message") or "") if not self.launched else ""

    @property
    def status_json(self) -> dict[str, Any] | None:
        """The status as ``--json`` shows it; None before anything was seen."""
        return self.status.as_json() if self.status else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Run:
        """From a record of this or an older gpurun; fields it does not know are ignored. Raises Impossible naming the field."""
        said = Fields(value)
        schema = said("schema", optional(whole)) or 1
        if schema > SCHEMA:
            raise Impossible(
                f"a newer gpurun wrote it (format {schema}, this one reads {SCHEMA}): update gpurun", "schema"
            )
        launched, overrides = said("launched", _flag), said("overrides", optional(list_of(string)))
        return cls(
            run_id=said("run_id", of_form(RUN_ID)),
            job_name=said("job_name", spelt),
            job=said("job", _job),
            job_file=said("job_file", spelt),
            code_root=said("code_root", spelt),
            host=said("host", spelt),
            created_at=said("created_at", moment),
            address=said("address", optional(spelt)) or "",
            volume=said("volume", optional(spelt)),
            root=said("root", optional(box_root)),
            attempted=said("attempted", _flag) or launched,  # older ones noted only the latter
            launched=launched,
            code=said("code", optional(spelt)) or "",
            overrides=overrides or (),
            parent=said("parent", optional(of_form(RUN_ID))),
            experiment=said("experiment", optional(spelt)),
            submission=said("submission", optional(spelt)),
            not_started=said("not_started", optional(_why)),
            status=said("status", Status.of_record),
            status_at=said("status_at", optional(moment)),
            fetched_at=said("fetched_at", optional(moment)),
            fetched_into=said("fetched_into", optional(absolute_path)),
            done=said("done", _flag),
            generation=said("generation", optional(spelt)),
            schema=schema,
        )


def _flag(value: object) -> bool:
    """True or false; false in a record from before there was such a field."""
    return False if value is None else boolean(value)


def _why(value: object) -> dict[str, Any]:
    said = Fields(value)
    return {name: said(name, optional(text)) for name in ("cause", "message", "hint")}


def _job(value: object) -> dict[str, Any]:
    """The job as it was written down. Its shape is looked at as far as commands without the job file's own checks go into it."""
    job = Fields(value)
    job("recipe", optional(spelt))
    job("command", optional(list_of(string)))  # any text: [bash, -c, "two\nlines"]
    job("outputs", optional(list_of(spelt)))
    job("price_per_hour", optional(measured))
    job("code", optional(Fields))
    job("settings", optional(_settings))
    job("smoke_test", optional(_smoke_test))
    assert isinstance(value, dict)
    return value


def _settings(value: object) -> None:
    settings = Fields(value)
    settings("evaluation", optional(lambda each: Fields(each)("metric", optional(spelt))))
    settings("prompts", optional(list_of(_anything)))
    settings("revision", optional(spelt))
    settings(
        "model", lambda value: Fields(value) if isinstance(value, dict) else optional(spelt)(value)
    )  # pretrain: a shape


def _smoke_test(value: object) -> None:
    smoke_test = Fields(value)
    smoke_test("tolerance", optional(mapping_of(optional(measured))))
    smoke_test("enabled", optional(boolean))


def _anything(value: object) -> object:
    return value


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
