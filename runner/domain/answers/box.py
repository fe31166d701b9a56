"""The facts of a box as its agent measured them: names are cleaned, impossible numbers are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from remote_payload.agent.wire.paths import ATTEMPT, RUN_ID
from runner.domain.answers.reading import (
    Fields,
    absolute_path,
    boolean,
    list_of,
    mapping_of,
    matching,
    optional,
    otherwise,
    text,
    whole,
    whole_between,
)
from runner.domain.answers.root import box_root, folder_below

MAX_GPUS = 64
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_BOX_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KINDS = re.compile("runpod|vast|lambda|container|machine")
_LOST_BY = re.compile("stop|destroy|volume|unknown")
_index = whole_between(0, 1023)
_cores = whole_between(0, 4096)
_memory = whole_between(0, 1 << 60)
_bytes = whole_between(0, 1 << 64)  # some network volumes say that they are endless


@dataclass(frozen=True)
class Gpu:
    index: int
    name: str
    uuid: str
    memory_total: int  # bytes
    memory_used: int
    held_by: str | None  # a run of gpurun's
    set_aside: str | None = None  # why no run is given it

    @property
    def free(self) -> bool:
        """Whether a run may be given it now."""
        return not self.held_by and not self.set_aside


@dataclass(frozen=True)
class Place:
    """Where the root lies (``remote_payload/agent/wire/box_facts.py``)."""

    kind: str  # of the box: runpod, vast, lambda, container, machine
    box_id: str | None  # the provider's name for the box
    folder: str
    volume: str | None  # a folder that survives a stop, where ``folder`` does not
    network: bool
    own_mount: bool
    lost_by: str  # stop, destroy, volume, unknown


@dataclass(frozen=True)
class TreeOnBox:
    """A folder on the box that a push may take unchanged files from; ``read_at`` is when the laptop read it (its own clock, seconds)."""

    path: str
    read_at: int | None


@dataclass(frozen=True)
class EarlierCode:
    """The code of an earlier run of the job, which a small patch may turn into the code of this one.

    ``marks`` is base64 of one mark for each of its files (``remote_payload/agent/wire/marks.py``).
    """

    run_id: str
    marks: str
    read_at: int | None


@dataclass(frozen=True)
class Given:
    """The interpreter that a job names: why it cannot be used, what it lacks, and why its torch cannot use the box's GPUs."""

    error: str | None
    missing: tuple[str, ...]
    torch: str | None


@dataclass(frozen=True)
class TorchAsked:
    """How many GPUs torch says that it can use in this interpreter; ``why`` where it is none."""

    interpreter: str
    gpus: int
    why: str


@dataclass(frozen=True)
class Have:
    """What the box has of a submission already. Nothing of it is there by default, or it was not asked for."""

    code: str | None = None  # a run whose code is the same
    code_base: TreeOnBox | None = None  # code of an earlier run
    earlier_code: EarlierCode | None = None
    data: dict[str, bool] = field(default_factory=dict)  # by key: whether it is complete there
    data_bases: dict[str, TreeOnBox | None] = field(default_factory=dict)  # by key: an earlier version
    attempts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # unfinished pushes by name, the newest first
    environment: bool = False
    payload: bool = False  # the training package
    interpreter: str | None = None  # one with the packages that the job requires
    given: Given | None = None  # about the one that the job names
    torch: TorchAsked | None = None
    program: str | None = None  # the path of the command's first word


@dataclass(frozen=True)
class Cluster:
    """A Slurm cluster as its login node knows it: each partition, the default one first, with the GPUs of its nodes as Slurm names them."""

    version: str
    partitions: dict[str, str]
    error: str | None  # why the controller does not answer
    containers: bool  # srun starts programs in containers (pyxis)


@dataclass(frozen=True)
class Box:
    """Facts of one probe."""

    root: str
    user: str
    python: str
    os: str
    in_container: bool
    cpus: int
    ram: int  # bytes, of the container where it is limited; 0 where it is unknown
    disk_free: int
    disk_total: int
    disk_writable: bool
    inodes_free: int | None
    rsync: str | None
    apt: bool
    driver: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]
    gpus_unknown: bool  # there may be GPUs, but asking for them hung or failed
    shm: int
    have: Have = field(default_factory=Have)
    ram_free: int | None = None  # bytes not in use
    disk_error: str | None = None  # why it takes nothing
    obstacle: str | None = None  # why gpurun may not install the system's packages there
    install_rsync: str | None = None  # the command that installs it there
    place: Place | None = None  # where the root lies
    slurm: Cluster | None = None  # where jobs can be submitted to Slurm there

    @classmethod
    def parse(cls, answer: object) -> Box:
        """From the agent's answer to ``probe``. Raises Impossible naming the impossible fact.

        A fact is null where asking for it failed on the box.
        """
        fact = Fields(answer)
        disk = fact("disk", Fields)
        root = fact("root", box_root)
        gpus = fact("gpus", optional(list_of(_gpu, MAX_GPUS)))
        return cls(
            root=root,
            user=fact("user", optional(text)) or "?",
            python=fact("python", optional(text)) or "?",
            os=fact("os", optional(text)) or "?",
            in_container=fact("in_container", boolean),
            cpus=fact("cpus", optional(_cores)) or 0,
            ram=fact("ram", optional(_bytes)) or 0,
            disk_free=disk("free", _bytes),
            disk_total=disk("total", _bytes),
            disk_writable=disk("writable", boolean),
            inodes_free=disk("inodes_free", optional(_bytes)),
            rsync=fact("rsync", optional(text)),
            apt=fact("apt", boolean),
            driver=fact("driver", optional(text)),
            cuda=fact("cuda", optional(text)),
            gpus=gpus or (),
            gpus_unknown=gpus is None,
            shm=fact("shm", optional(_bytes)) or 0,
            have=fact("have", lambda value: _have(value, root)),
            ram_free=fact("ram_free", optional(_bytes)),
            disk_error=disk("error", optional(text)),
            obstacle=fact("obstacle", optional(text)),
            install_rsync=fact("install_rsync", optional(text)),
            place=fact("place", optional(_place)),
            slurm=fact("slurm", optional(_cluster)),
        )


def _gpu(value: object) -> Gpu:
    gpu = Fields(value)
    return Gpu(
        index=gpu("index", _index),
        name=gpu("name", optional(text)) or "unknown GPU",
        uuid=gpu("uuid", optional(text)) or "",
        memory_total=gpu("memory_total", optional(_memory)) or 0,
        memory_used=gpu("memory_used", optional(_memory)) or 0,
        held_by=gpu("held_by", optional(text)),
        set_aside=gpu("set_aside", optional(text)),
    )


def _cluster(value: object) -> Cluster:
    cluster = Fields(value)
    listed = cluster("partitions", list_of(lambda each: (Fields(each)("name", text), Fields(each)("gpus", text)), 100))
    error, containers = cluster("error", optional(text)), cluster("containers", boolean)
    return Cluster(cluster("version", text), dict(listed), error, containers)


def _place(value: object) -> Place:
    place = Fields(value)
    return Place(
        kind=place("kind", matching(_KINDS)),
        box_id=place("box_id", optional(matching(_BOX_ID))),
        folder=place("folder", absolute_path),
        volume=place("volume", optional(absolute_path)),
        network=place("network", boolean),
        own_mount=place("own_mount", boolean),
        lost_by=place("lost_by", matching(_LOST_BY)),
    )


def _have(value: object, root: str) -> Have:
    def tree(found: object) -> TreeOnBox:
        named = Fields(found)
        return TreeOnBox(named("path", folder_below(root)), named("read_at", optional(whole)))

    there = Fields(value)
    return Have(
        code=there("code", optional(matching(RUN_ID))),
        code_base=there("link_dest", optional(tree)),
        earlier_code=there("patch", optional(_earlier_code)),
        data=there("data", otherwise({}, mapping_of(boolean))),
        data_bases=there("data_link_dest", otherwise({}, mapping_of(optional(tree)))),
        attempts=there("attempts", otherwise({}, mapping_of(list_of(matching(ATTEMPT), 100)))),
        environment=there("env", optional(boolean)) or False,
        payload=there("payload", optional(boolean)) or False,
        interpreter=there("interpreter", optional(absolute_path)),
        given=there("given", optional(_given)),
        torch=there("torch", optional(_torch)),
        program=there("program", optional(text)),
    )


def _given(value: object) -> Given:
    given = Fields(value)
    return Given(given("error", optional(text)), given("missing", list_of(text, 1000)), given("torch", optional(text)))


def _torch(value: object) -> TorchAsked:
    torch = Fields(value)
    return TorchAsked(torch("interpreter", absolute_path), torch("gpus", _index), torch("why", text))


def _earlier_code(value: object) -> EarlierCode:
    code = Fields(value)
    return EarlierCode(
        code("run_id", matching(RUN_ID)), code("marks", matching(_BASE64)), code("read_at", optional(whole))
    )
