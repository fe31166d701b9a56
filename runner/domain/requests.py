"""The arguments of the agent's larger requests, as they stand in a frame: JSON objects with these fields.

Paths are relative to the folder that the verb works in, times are seconds of this machine's clock.
"""

from __future__ import annotations

from typing import TypedDict


class WantedData(TypedDict):
    """One of the job's data entries: its name in the job, its key below ``$ROOT/data``, the digest of its content."""

    key: str
    digest: str
    name: str


class ProbeRequest(TypedDict):
    """What the laptop wants to know of a box before it sends anything; None for what the job has no use for."""

    run_id: str | None
    job_name: str
    code_digest: str | None
    data: list[WantedData]
    payload: str | None  # the training package's sha256
    env_key: str
    python: str | None
    requirements: list[str]  # ranges that an interpreter of the box may satisfy
    interpreter: str | None  # the one that the job names
    interpreters: list[str]  # more places to look for one
    program: str | None  # the first word of the job's command
    variables: dict[str, str]  # the job's PATH
    gpus: int | str
    try_torch: bool  # torch itself is asked whether it can use the GPUs: seconds
    disk: int | None  # bytes


class PeerRequest(TypedDict):
    """A box to connect to from another; the two texts are known to both (``remote_payload/agent/box/network/peers.py``)."""

    address: str
    port: int
    greeting: str
    reply: str


class Expected(TypedDict):
    """What a pushed tree must be: the box computes the same of what has arrived."""

    digest: str
    marks: str  # over paths, sizes, permissions, link targets and times
    contents: bool  # the marks are over contents instead of times
    permissions: bool  # the box's filesystem keeps permissions


class SealRequest(Expected):
    """The attempt ``incoming`` at data, and the ``key`` that it gets; ``read_at``: when the laptop last saw it so."""

    incoming: str
    key: str
    read_at: int


class PatchedFile(TypedDict):
    """A file whose content goes along with the request."""

    path: str
    size: int
    mtime_ns: int
    mode: int


class PatchedLink(TypedDict):
    """A symbolic link."""

    path: str
    target: str


class PatchBase(TypedDict, total=False):
    """The tree that is patched: a run's code, or an earlier attempt of the same push. One of the two."""

    run_id: str
    earlier: str


class PatchedTree(PatchBase):
    """The base without the entries of these numbers and with these files, and the marks of the result."""

    without: list[int]
    files: list[PatchedFile | PatchedLink]
    marks: str


class PatchRequest(PatchedTree):
    """The same, and the attempt that it becomes."""

    incoming: str


class CodeRequest(Expected):
    """The attempt with the run's code, or the run that has the same code already."""

    incoming: str | None
    link_from: str | None
    read_at: int


class DataRequest(TypedDict):
    """Data to link into the run's working directory; ``member`` is the name of a single file."""

    path: str
    key: str
    member: str | None


class ResumeRequest(TypedDict):
    """The run to go on from, and a checkpoint's name or ``auto``; the key of its ``outputs`` where it is not on this box."""

    run_id: str
    checkpoint: str
    outputs: str | None


class BoxesRequest(TypedDict):
    """Of a run on several boxes: which of them this is, and where that of rank 0 is (``agent/wire/launch_request.Boxes``)."""

    size: int
    rank: int
    address: str
    rendezvous: int
    supervisors: int
    interface: str
    word: str


class LaunchRequest(TypedDict):
    """Everything that a run needs. ``command`` is the user's own program, ``module`` a recipe; one of them is None."""

    run_id: str
    job: dict[str, object]  # the job as it is kept beside the run; no secrets
    code: CodeRequest | None
    data: list[DataRequest]
    payload: str | None
    interpreter: str
    command: list[str] | None
    module: str | None
    torchrun: bool
    processes: int | None
    variables: dict[str, str]
    secrets: dict[str, str]
    gpus: int | str  # a number, or "all"
    queue: bool
    vram: int  # bytes of memory that each GPU must have; 0 where the job does not say
    disk: int  # bytes that the run will write: in the queue it waits until there is room; 0 where that is not known
    group: (
        str | None
    )  # the runs of one submission that differ in the seed alone, where the job says how many of these are kept
    time_limit: float | None  # seconds
    cost_limit: float | None  # seconds that the job's money lasts
    outputs: list[str]
    resume: ResumeRequest | None
    slurm: dict[str, object] | None  # what the job says for Slurm; None where the box itself runs it
    boxes: BoxesRequest | None  # where the run is on several boxes
    watch: bool  # whether the answer waits for a moment, and tells of a program that ends at once


class Wish(TypedDict):
    """An interrupted run to start again under a new id, with these of the secrets; ``interpreter`` where it is not its own one."""

    earlier: str
    run_id: str
    secrets: list[str]
    interpreter: str | None


class RecoverRequest(TypedDict):
    """``secrets`` are the values of all that the wishes name; ``known`` are runs whose status is asked for as well."""

    start: list[Wish]
    secrets: dict[str, str]
    known: list[str]
