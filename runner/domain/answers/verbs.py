"""The smaller answers of the agent on the box, each checked as a whole before use. ``read_*`` raise Impossible naming the field.

The larger ones have files of their own: ``box.py`` (what was measured), ``status.py`` (a run), ``manifest.py`` (its outputs).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from remote_payload.agent.wire.paths import KEY, RUN_ID
from remote_payload.agent.wire.protocol import OFFSET
from runner.domain.answers.manifest import output_path
from runner.domain.answers.reading import (
    LARGEST,
    Fields,
    Impossible,
    absolute_path,
    boolean,
    finite_number,
    list_of,
    mapping_of,
    matching,
    one_of,
    optional,
    shown,
    single_line,
    text,
    time_in_seconds,
    whole,
    whole_between,
)
from runner.domain.answers.status import Status

MAX_LISTED = 100_000  # processes, or things on a disk, in one answer


@dataclass(frozen=True)
class Provisioned:
    """The interpreter that a run gets, and ``how`` it came by it; ``missing`` are requirements that a given one lacks, ``torch`` is why its
    torch cannot use the box's GPU."""

    interpreter: str
    how: str
    seconds: float
    installer: str | None
    missing: tuple[str, ...]
    torch: str | None = None


def read_provisioned(answer: Fields) -> Provisioned:
    return Provisioned(
        interpreter=answer("interpreter", absolute_path),
        how=answer("how", one_of(("given", "found", "reused", "built", "overlaid"))),
        seconds=answer("seconds", time_in_seconds),
        installer=answer("installer", optional(text)),
        missing=answer("missing", list_of(text, MAX_LISTED)),
        torch=answer("torch", optional(text)),
    )


@dataclass(frozen=True)
class GpuSetAside:
    """A GPU of a box that no run is given since it failed ``runs``: its number, since when, and a line of the last one's log."""

    gpu: int
    runs: tuple[str, ...]
    at: float
    evidence: str


def _gpu_set_aside(value: object) -> GpuSetAside:
    gpu = Fields(value)
    return GpuSetAside(
        gpu("gpu", whole_between(0, 1023)),
        gpu("runs", list_of(matching(RUN_ID), 16)),
        gpu("at", time_in_seconds),
        gpu("evidence", text),
    )


@dataclass(frozen=True)
class OnBox:
    """Every run on a box, newest first, and its GPUs that are set aside."""

    runs: tuple[Status, ...]
    set_aside: tuple[GpuSetAside, ...]


def read_on_box(answer: Fields) -> OnBox:
    return OnBox(answer("runs", list_of(Status.parse)), answer("set_aside", list_of(_gpu_set_aside, 1024)))


@dataclass(frozen=True)
class Launched:
    """The run's status; ``attached`` when the run existed already. ``code`` is the digest of the code it runs, "" for a recipe."""

    attached: bool
    status: Status
    code: str


def read_launched(answer: Fields) -> Launched:
    return Launched(answer("attached", boolean), answer("status", Status.parse), answer("code", optional(text)) or "")


@dataclass(frozen=True)
class Difference:
    """A file of a pushed tree that differs from the one that was sent."""

    path: str
    why: str


def read_differences(answer: Fields) -> tuple[Difference, ...]:
    return tuple(answer("differs", list_of(_difference, MAX_LISTED)))


def _difference(value: object) -> Difference:
    fields = Fields(value)
    return Difference(fields("path", text), fields("why", text))


@dataclass(frozen=True)
class Shared:
    """Data on the box that an output of a run has become: its key, and the name of its file where it is one file."""

    key: str
    member: str | None
    files: int
    bytes: int


def read_shared(answer: Fields) -> Shared | None:
    """None where the box has no such run."""
    key = answer("key", optional(matching(KEY)))
    shared = Shared(key or "", answer("member", optional(single_line)), answer("files", whole), answer("bytes", whole))
    return shared if key else None


@dataclass(frozen=True)
class Process:
    """A process on the box as a person recognises it."""

    pid: int
    command: str
    state: str
    gpus: tuple[int, ...] = ()


def _process(value: object) -> Process:
    fields = Fields(value)
    gpus = fields("gpus", optional(list_of(whole, MAX_LISTED))) or ()
    return Process(fields("pid", whole), fields("command", text), fields("state", text), gpus)


@dataclass(frozen=True)
class Ended:
    """A run after ``stop``: its processes that still live, and other processes that have its GPUs open."""

    status: Status
    survivors: tuple[Process, ...]
    device_holders: tuple[Process, ...]


def read_ended(answer: Fields) -> Ended:
    processes = list_of(_process, MAX_LISTED)
    return Ended(answer("status", Status.parse), answer("survivors", processes), answer("device_holders", processes))


@dataclass(frozen=True)
class Stranger:
    """A process with a GPU open. ``age`` in seconds, ``memory`` resident bytes; ``kept`` says why it is never ended."""

    pid: int
    user: str | None
    age: int | None
    command: str
    memory: int | None
    gpus: tuple[int, ...]
    run_id: str | None
    kept: str | None


def _stranger(value: object) -> Stranger:
    fields = Fields(value)
    return Stranger(
        pid=fields("pid", whole),
        user=fields("user", optional(text)),
        age=fields(
            "age", optional(whole_between(-LARGEST, LARGEST))
        ),  # under lxcfs the uptime is shorter than the age of processes
        command=fields("command", text),
        memory=fields("memory", optional(whole)),
        gpus=fields("gpus", list_of(whole, MAX_LISTED)),
        run_id=fields("run_id", optional(text)),
        kept=fields("kept", optional(text)),
    )


@dataclass(frozen=True)
class Held:
    """A GPU with memory in use and no visible process that holds it."""

    gpu: int
    bytes: int


def _held(value: object) -> Held:
    fields = Fields(value)
    return Held(fields("gpu", whole), fields("bytes", whole))


@dataclass(frozen=True)
class Stale:
    """Processes with GPUs open: those that were ended, the others, and those that survived the attempt to end them."""

    ended: tuple[Stranger, ...]
    others: tuple[Stranger, ...]
    held: tuple[Held, ...]
    survivors: tuple[Process, ...]


def read_stale(answer: Fields) -> Stale:
    strangers = list_of(_stranger, MAX_LISTED)
    return Stale(
        ended=answer("ended", strangers),
        others=answer("others", strangers),
        held=answer("held", list_of(_held, MAX_LISTED)),
        survivors=answer("survivors", list_of(_process, MAX_LISTED)),
    )


@dataclass(frozen=True)
class Item:
    """A file or folder on the box; ``why`` is the reason why it is kept."""

    path: str
    bytes: int
    why: str = ""


@dataclass(frozen=True)
class Cleaned:
    """The files and folders that ``clean`` removed, or would remove, and those that it keeps."""

    removed: tuple[Item, ...]
    kept: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.removed)


def read_cleaned(answer: Fields) -> Cleaned:
    items = list_of(_item, MAX_LISTED)
    return Cleaned(answer("removed", items), answer("kept", items))


def _item(value: object) -> Item:
    fields = Fields(value)
    return Item(fields("path", text), fields("bytes", whole), fields("why", optional(text)) or "")


@dataclass(frozen=True)
class Kept:
    """A complete checkpoint, or the finished model (``best``).

    ``path`` is its file or folder below ``outputs/``, which is the name too unless a recipe wrote it; ``at`` is when it was complete,
    by the box's clock.
    """

    name: str
    path: str
    step: int | None
    metrics: dict[str, float]
    size: int
    resumable: bool
    at: float | None


def read_checkpoints(answer: Fields) -> dict[str, Kept]:
    """By name, oldest first."""
    listed = answer("checkpoints", list_of(read_kept, MAX_LISTED))
    best = answer("best", optional(read_kept))
    return {each.name: each for each in (*listed, *([best] if best else []))}


def read_kept(value: object) -> Kept:
    fields = Fields(value)
    return Kept(
        name=fields("name", output_path),
        path=fields("path", output_path),
        step=fields("step", optional(whole)),
        metrics=fields("metrics", mapping_of(finite_number)),
        size=fields("size", whole),
        resumable=fields("resumable", boolean),
        at=fields("at", optional(time_in_seconds)),
    )


@dataclass(frozen=True)
class Piece:
    """Bytes of the run's log or events file (``of``) that stand at ``offset``."""

    of: str
    offset: int
    data: bytes


def read_piece(of: str, payload: bytes) -> Piece:
    """From a LOG or EVENTS frame."""
    if len(payload) < OFFSET.size:
        raise Impossible(f"a piece of {len(payload)} bytes, without its offset", of)
    offset = OFFSET.unpack_from(payload)[0]
    if offset > LARGEST:
        raise Impossible(f"{shown(offset)} as an offset", of)
    return Piece(of, offset, payload[OFFSET.size :])


@dataclass(frozen=True)
class Moved:
    """A notice about the log or the events file (``of``): which file it is now, and how offsets do not simply go on.

    ``change`` is None, ``replaced``, ``truncated``, ``deleted``, or ``gap``: ``size`` bytes from ``offset`` on are no longer there.
    """

    of: str
    change: str | None
    generation: str
    offset: int
    size: int


@dataclass(frozen=True)
class Followed:
    """The end of a stream: nothing more comes of this run, or nothing more was asked for."""

    status: Status


Notice = Piece | Moved | Status


def read_notices(answer: Fields) -> tuple[Notice, ...]:
    """The notices of one PROGRESS frame of ``follow``."""
    log, events = (answer(of, optional(functools.partial(_moved, of))) for of in ("log", "events"))
    return tuple(each for each in (log, events, answer("status", optional(Status.parse))) if each is not None)


def _moved(of: str, value: object) -> Moved:
    fields = Fields(value)
    change = fields("change", optional(one_of(("replaced", "truncated", "deleted", "gap"))))
    size = fields("bytes", whole) if change == "gap" else fields("size", optional(whole)) or 0
    return Moved(of, change, fields("generation", text), fields("offset", whole), size)
