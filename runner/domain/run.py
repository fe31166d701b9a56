"""One attempt at a job, as this laptop remembers it. The box is the truth; this is a cache and the way back to it."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

from remote_payload.agent.wire.paths import IDENTITY, RUN_ID, check_run_id
from runner.domain import places
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    absolute_path,
    boolean,
    list_of,
    mapping_of,
    one_of,
    optional,
    otherwise,
    single_line,
    string,
    text,
    time_in_seconds,
    whole,
)
from runner.domain.answers.reading import matching as of_form
from runner.domain.answers.root import box_root
from runner.domain.answers.status import Status
from runner.domain.job import Job
from runner.domain.recorded_job import read_job

SCHEMA = 1
BOX, SLURM = "box", "slurm"  # engines
_STAMP = re.compile(r"-(\d{8}-\d{6})-[0-9a-f]{4}$")


@dataclass(frozen=True)
class Refusal:
    """Why the submission of a run ended before its start: ``cause`` in one word, the error's message and its hint."""

    cause: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class OtherBox:
    """One more box of a run on several; as the run's own, its address, root and identity are known once it was launched."""

    host: str
    volume: str | None = None
    address: str = ""
    root: str | None = None
    box: str | None = None


@dataclass
class Run:
    """A run's record. ``status`` is the box's last answer, seen at ``status_at`` (epoch seconds)."""

    run_id: str
    job: Job  # with its folder and file on this laptop, and its --set overrides
    host: str  # as typed; resolved again each time, since addresses change
    created_at: float
    address: str = ""  # as resolved when submitted, for display
    volume: str | None = None
    root: str | None = None  # $ROOT on the box, once known
    box: str | None = (
        None  # the identity of the box, once launched (of `resume --all` from the beginning): the same at another address
    )
    others: tuple[OtherBox, ...] = ()  # where the run is on several boxes: those of the ranks 1, 2, …
    attempted: bool = False  # the launch was about to be asked for: the run may be there, whatever was heard
    launched: bool = False  # the box has confirmed the start
    code: str = ""  # the digest of the code that it runs, once launched
    data: dict[str, str] = field(default_factory=dict)  # by its name the key that all data had, once launched
    parent: str | None = None  # the run this one resumes
    went_on_as: str | None = None  # the newest run that resumes this one, on this box or another
    experiment: str | None = None
    engine: str = BOX  # who starts the run: the box itself, or SLURM
    submission: str | None = None  # an id that the runs of one submission share, and the runs that resume them
    not_started: Refusal | None = None
    status: Status | None = None
    status_at: float | None = None
    fetched_at: float | None = (
        None  # when all outputs of the finished run were home; None after a fetch while it trained
    )
    fetched_into: str | None = None
    done: bool = False  # `gpurun done` found it safe to destroy
    generation: str | None = None  # of the log that the local copy continues

    @property
    def how_to_start(self) -> str:
        """The command for a run whose submission was interrupted before its start; one that was to resume another is made anew."""
        return self.how_to_repeat if self.parent else f"{self.how_to_repeat} --run {self.run_id}"

    @property
    def how_to_repeat(self) -> str:
        """The command that makes such a run once more."""
        hosts = [f"--host {shlex.quote(host)}" for host in (self.host, *(other.host for other in self.others))]
        if self.parent:
            return " ".join([f"gpurun resume {self.parent}", *hosts])
        overrides = [f"--set {shlex.quote(each)}" for each in self.job.overrides or ()]
        return " ".join(["gpurun submit", shlex.quote(str(self.job.file or "")), *hosts, *overrides])

    @property
    def addresses(self) -> str:
        """The addresses of its boxes, for display; by rank where there are several."""
        return " and ".join([self.address, *(other.address for other in self.others)])

    @property
    def outputs_here(self) -> Path:
        """The folder on this machine for its outputs: where a fetch has put them, else its own."""
        return Path(self.fetched_into) if self.fetched_into else places.run_folder(self.run_id) / "outputs"

    @property
    def may_be_there(self) -> bool:
        """Whether its box may know it: the launch was asked for, and not refused."""
        return self.launched or (self.attempted and not self.not_started)

    @property
    def why_not_started(self) -> str:
        """The message that ended its submission before the start; empty for one that started or was interrupted."""
        return self.not_started.message if self.not_started and not self.launched else ""

    def as_json(self) -> dict[str, object]:
        """The record as it is on disk."""
        return {
            "run_id": self.run_id,
            "job_name": self.job.name,
            "job": self.job.wire(),
            "job_file": str(self.job.file or ""),
            "code_root": str(self.job.folder),
            "host": self.host,
            "created_at": self.created_at,
            "address": self.address,
            "volume": self.volume,
            "root": self.root,
            "box": self.box,
            "others": [asdict(other) for other in self.others],
            "attempted": self.attempted,
            "launched": self.launched,
            "code": self.code,
            "overrides": list(self.job.overrides or ()),
            "data": self.data,
            "parent": self.parent,
            "went_on_as": self.went_on_as,
            "experiment": self.experiment,
            "submission": self.submission,
            "engine": self.engine,
            "not_started": asdict(self.not_started) if self.not_started else None,
            "status": self.status.as_json() if self.status else None,
            "status_at": self.status_at,
            "fetched_at": self.fetched_at,
            "fetched_into": self.fetched_into,
            "done": self.done,
            "generation": self.generation,
            "schema": SCHEMA,
        }

    @classmethod
    def from_json(cls, value: object) -> Run:
        """From a record of this or an older gpurun; fields it does not know are ignored. Raises Impossible naming the field."""
        record = Fields(value)
        schema = record("schema", optional(whole)) or 1
        if schema > SCHEMA:
            raise Impossible(
                f"a newer gpurun wrote it (format {schema}, this one reads {SCHEMA}): update gpurun", "schema"
            )
        launched = record("launched", _flag)
        folder, file = Path(record("code_root", single_line)), record("job_file", single_line)
        overrides = record("overrides", optional(list_of(string))) or ()
        return cls(
            run_id=record("run_id", of_form(RUN_ID)),
            job=record("job", lambda job: read_job(job, folder, Path(file) if file else None, overrides)),
            host=record("host", single_line),
            created_at=record("created_at", time_in_seconds),
            address=record("address", optional(single_line)) or "",
            volume=record("volume", optional(single_line)),
            root=record("root", optional(box_root)),
            box=record("box", optional(of_form(IDENTITY))),
            others=record("others", otherwise((), list_of(_other))),
            attempted=record("attempted", _flag) or launched,  # older ones noted only the latter
            launched=launched,
            code=record("code", optional(single_line)) or "",
            data=record("data", otherwise({}, _keys)),
            parent=record("parent", optional(of_form(RUN_ID))),
            went_on_as=record("went_on_as", optional(of_form(RUN_ID))),
            experiment=record("experiment", optional(single_line)),
            submission=record("submission", optional(single_line)),
            engine=record("engine", optional(one_of((BOX, SLURM)))) or BOX,
            not_started=record("not_started", optional(_refusal)),
            status=record("status", Status.of_record),
            status_at=record("status_at", optional(time_in_seconds)),
            fetched_at=record("fetched_at", optional(time_in_seconds)),
            fetched_into=record("fetched_into", optional(absolute_path)),
            done=record("done", _flag),
            generation=record("generation", optional(single_line)),
        )


class RunChanges(TypedDict, total=False):
    """The fields of a run that change while it lives, for ``store.update``."""

    job: Job
    host: str
    address: str
    volume: str | None
    root: str | None
    box: str | None
    others: tuple[OtherBox, ...]
    attempted: bool
    launched: bool
    code: str
    data: dict[str, str]
    went_on_as: str | None
    not_started: Refusal | None
    status: Status | None
    status_at: float | None
    fetched_at: float | None
    fetched_into: str | None
    done: bool
    generation: str | None


_flag = otherwise(False, boolean)  # a record may be from before there was such a field


def _keys(value: object) -> dict[str, str]:
    """The keys of data by name, the names as they were written."""
    mapping_of(single_line)(value)
    assert isinstance(value, dict)
    return {str(name): single_line(key) for name, key in value.items()}


def _other(value: object) -> OtherBox:
    other = Fields(value)
    return OtherBox(
        host=other("host", single_line),
        volume=other("volume", optional(single_line)),
        address=other("address", optional(single_line)) or "",
        root=other("root", optional(box_root)),
        box=other("box", optional(of_form(IDENTITY))),
    )


def _refusal(value: object) -> Refusal:
    refusal = Fields(value)
    cause, message, hint = (refusal(name, otherwise("", text)) for name in ("cause", "message", "hint"))
    return Refusal(cause, message, hint)


def mint_id(job_name: str, now: float | None = None) -> str:
    """A new run id: the job's name, the local time, four random hex digits."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return check_run_id(f"{job_name[:48].rstrip('-')}-{stamp}-{os.urandom(2).hex()}")


def matching(name: str, ids: Sequence[str]) -> list[str]:
    """The ids (given oldest first) that a name stands for: the same id, else the newest run of the job of that name, else all ids that
    begin or end with it."""
    if name in ids:
        return [name]
    if of_job := [run_id for run_id in ids if (found := _STAMP.search(run_id)) and run_id[: found.start()] == name]:
        return of_job[-1:]
    return [run_id for run_id in ids if name and (run_id.startswith(name) or run_id.endswith(f"-{name}"))]


def stamp_of(run_id: str) -> str:
    """The part of a run id that sorts by time; empty for a name that is no run id."""
    found = _STAMP.search(run_id)
    return found[1] if found else ""
