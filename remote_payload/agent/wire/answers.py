"""The answers of the verbs as they go over the wire: the fields of each JSON object. ``runner/domain/answers`` reads and checks them.

The agent imports this file for type checking only, so that its start does not pay for it.
"""

from typing import Any, Dict, List, Optional, TypedDict


class State(TypedDict):
    """The state of a run: ``phase`` is prepared, launched, running or finished; ``outcome`` and ``cause`` say how it finished."""

    phase: str
    outcome: Optional[str]
    cause: Optional[str]
    orphaned: bool  # processes of it go on without a supervisor
    stalled: bool  # all its processes are stopped (SIGSTOP, a debugger)


class Exit(TypedDict):
    """How the payload ended, as the exit slot holds it."""

    kind: str
    number: int
    at: float


class Status(State):
    """One run. Times are epoch seconds by the clock of the box; ``now`` is when it was asked."""

    run_id: str
    exit: Optional[Exit]
    pid: Optional[int]
    gpus: List[int]
    started_at: Optional[float]
    ended_at: Optional[float]
    now: float
    progress: Dict[str, Dict[str, Any]]  # the last event of each type
    log_size: int
    generation: str  # of the log: another one means another file under its name
    evidence: Optional[str]  # the line of the log that shows the cause, or what a queued run waits for
    advice: Optional[str]  # the one thing to change


class GpuSetAside(TypedDict):
    """A GPU that no run is given, by its number: the runs that it failed, since when, and the last one's line of the log."""

    gpu: int
    runs: List[str]
    at: float
    evidence: str


class Statuses(TypedDict):
    """``status``. GPUs are told where all runs were asked for."""

    runs: List[Status]
    set_aside: List[GpuSetAside]


class UsedAgain(TypedDict):
    """``use_gpu``."""

    was_set_aside: bool


class Launched(TypedDict):
    """``launch``. ``code`` is the digest of the code that runs."""

    attached: bool
    status: Status
    code: Optional[str]


class InterruptedRun(TypedDict):
    """A run that a restart interrupted, and what keeps it from starting again: ``environment`` and ``payload`` can be mended, what is
    ``missing`` cannot."""

    status: Status
    was: str  # running, or waiting
    successor: Optional[str]  # the run that took its place
    missing: List[str]
    environment: Optional[str]
    payload: Optional[str]  # the training package that it needs, by its sha256
    checkpoint: Optional[str]


class StartedAgain(Launched):
    """A run that takes the place of the run ``earlier``."""

    earlier: str


class NotRecovered(TypedDict):
    """Why an interrupted run was not started."""

    run_id: str
    message: str
    hint: str


class Recovered(TypedDict):
    """``recover``. ``runs`` are in the order of their turns."""

    runs: List[InterruptedRun]
    failed: List[NotRecovered]
    known: List[Status]


class ProcessShown(TypedDict):
    """A process in an answer; ``state`` is the kernel's letter."""

    pid: int
    command: str
    state: str


class DeviceHolder(ProcessShown):
    """A process that does not belong to the run and has its GPUs open."""

    gpus: List[int]


class Stopped(TypedDict):
    """``stop``."""

    status: Status
    survivors: List[ProcessShown]
    device_holders: List[DeviceHolder]


class Followed(TypedDict):
    """``follow``, once the run is over."""

    status: Status
    generation: str
    log_offset: int
    events_offset: int


class GpuUser(TypedDict):
    """A process that has a GPU open: ``age`` in seconds, ``memory`` resident bytes, ``kept`` why it is never ended."""

    pid: int
    user: Optional[str]
    age: Optional[int]
    command: str
    memory: Optional[int]
    gpus: List[int]
    run_id: Optional[str]
    kept: Optional[str]


class GpuMemory(TypedDict):
    """A GPU with memory in use that no process which we see has open."""

    gpu: int
    bytes: int


class Stale(TypedDict):
    """``stale``."""

    ended: List[GpuUser]
    others: List[GpuUser]
    held: List[GpuMemory]
    survivors: List[ProcessShown]


class ProcessLeft(TypedDict):
    """A process of a run, by its command."""

    pid: int
    command: str


class RunHeld(TypedDict):
    """A run below ``root``, and its processes."""

    root: str
    left: List[ProcessLeft]
    status: Status


class PushHeld(TypedDict):
    """A push that no run took; ``run_id`` is None where its name holds none."""

    root: str
    name: str
    run_id: Optional[str]


class HomelessRun(TypedDict):
    """A run that has processes and no folder."""

    run_id: str
    left: List[ProcessLeft]


class UnreadRoot(TypedDict):
    """A root that cannot be listed."""

    root: str
    why: str


class Holdings(TypedDict):
    """``holdings``."""

    runs: List[RunHeld]
    pushes: List[PushHeld]
    homeless: List[HomelessRun]
    unread: List[UnreadRoot]


class Artifact(TypedDict):
    """A file of ``outputs/``; ``mtime`` in epoch seconds."""

    path: str
    size: int
    sha256: str
    mtime: float


class _LeftOut(TypedDict):
    path: str
    why: str


class LeftOut(_LeftOut, total=False):
    """A path that the manifest does not list; ``dispensable`` where no result is lost without it."""

    dispensable: bool


class Manifest(TypedDict):
    """``manifest``: ``complete`` where the run is over; ``folders`` are those that are complete in themselves."""

    complete: bool
    files: List[Artifact]
    folders: List[str]
    left_out: List[LeftOut]


class Checkpoint(TypedDict):
    """A checkpoint or a model, by its own manifest; ``size`` in bytes.

    ``path`` is its file or folder below ``outputs/``, ``at`` when it was complete, by the box's clock.
    """

    name: str
    path: str
    step: Optional[int]
    metrics: Dict[str, float]
    size: int
    resumable: bool
    at: Optional[float]


class Unfinished(TypedDict):
    """A checkpoint of a program of the user's own that is not complete, and ``why``; ``at`` is when it was last written to."""

    path: str
    step: Optional[int]
    size: int
    at: Optional[float]
    why: str


class Checkpoints(TypedDict):
    """``checkpoints``: the complete ones, oldest first, the finished model, and those that are not complete; ``now`` by the box's clock."""

    checkpoints: List[Checkpoint]
    best: Optional[Checkpoint]
    unfinished: List[Unfinished]
    now: float


class Evaluated(TypedDict):
    """The last evaluation of one name."""

    name: str
    step: Optional[int]
    metrics: Dict[str, float]


class RunResults(TypedDict):
    """What a run has come to. ``best``: what was measured of the chosen model; ``final`` its bytes, or those of the newest checkpoint.

    ``checkpoints`` counts the complete ones and the chosen model, ``bytes`` is their size.
    """

    status: Status
    evaluations: List[Evaluated]
    best: Optional[Evaluated]
    final: Optional[int]
    checkpoints: int
    bytes: int


class Results(TypedDict):
    """``results``."""

    runs: List[RunResults]


class Removed(TypedDict):
    """A path below the root, with the bytes it takes on the disk."""

    path: str
    bytes: int


class Kept(Removed):
    """Why a path was not removed."""

    why: str


class Cleaned(TypedDict):
    """``clean``."""

    removed: List[Removed]
    kept: List[Kept]


class Sealed(TypedDict):
    """``seal``."""

    key: str
    path: str
    files: int
    bytes: int


class Shared(TypedDict):
    """``share``: the data that an output of a run has become, and the name of its file where it is one; no key: no such run here."""

    key: Optional[str]
    member: Optional[str]
    files: int
    bytes: int


class Difference(TypedDict):
    """A path of a pushed tree that is not as it was sent."""

    path: str
    why: str


class Compared(TypedDict):
    """``compare``: the first differences, and how many there are."""

    differs: List[Difference]
    count: int


class Patched(TypedDict):
    """``patch``: how many files the new tree has."""

    files: int


class Reached(TypedDict):
    """How a connection to a box at one of its addresses went: ``latency`` in seconds there and back, ``rate`` in bytes a second."""

    address: str
    error: Optional[str]
    latency: Optional[float]
    rate: Optional[float]


class Reach(TypedDict):
    """``reach``: the boxes that were asked for, and how many connected while this one listened."""

    reached: List[Reached]
    served: int


class Provisioned(TypedDict):
    """``provision``: ``how`` is given, found, reused, built or overlaid; ``missing`` are requirements that a given interpreter lacks,
    ``torch`` is why its torch cannot use the box's GPU."""

    interpreter: str
    how: str
    seconds: float
    installer: Optional[str]
    missing: List[str]
    torch: Optional[str]


class Installed(TypedDict):
    """``install_tools``."""

    installed: List[str]
    present: List[str]


class Wiped(TypedDict):
    """``wipe``: paths of secrets that could not be removed."""

    left: List[str]


class Sampled(TypedDict):
    """``sample``: the exit code of the process."""

    code: int
