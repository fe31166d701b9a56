"""The JSON documents that ``--json`` prints, as types. docs/json.md explains every field; a test compares the two, and what commands print.

Every command prints one of the classes under "What the commands print", or ``Failure``. Times are epoch seconds, lengths of time
are seconds, sizes are bytes. A field is always there: None (``null``) where its value is not known. ``as_document.py`` fills them.
"""

from __future__ import annotations

from typing import TypedDict

# Errors


class Error(TypedDict):
    kind: str
    message: str
    meaning: str
    hint: str
    exit_code: int


class Failure(TypedDict):
    error: Error


# A run


class NotStarted(TypedDict):
    cause: str
    message: str
    hint: str


class Exit(TypedDict):
    kind: str
    number: int
    at: float


class Status(TypedDict):
    run_id: str
    phase: str
    outcome: str | None
    cause: str | None
    exit: Exit | None
    orphaned: bool
    stalled: bool
    pid: int | None
    gpus: list[int]
    started_at: float | None
    ended_at: float | None
    now: float | None
    progress: dict[str, object]
    log_size: int
    generation: str
    evidence: str | None
    advice: str | None


class Run(TypedDict):
    run_id: str
    job_name: str | None
    host: str
    address: str | None
    created_at: float | None
    attempted: bool
    launched: bool
    not_started: NotStarted | None
    parent: str | None
    experiment: str | None
    submission: str | None
    status: Status | None
    seen_at: float | None
    elapsed_seconds: float | None
    cost: float | None
    fetched_into: str | None
    done: bool


# Parts of documents


class Finding(TypedDict):
    what: str
    verdict: str
    said: str
    hint: str


class Forecast(TypedDict):
    micro_batch: int
    error: float
    vram: int
    vram_parts: dict[str, int]
    vram_there: int | None
    ram: int
    ram_parts: dict[str, int]
    ram_there: int | None
    ram_free: int | None
    runs_at_once: int
    disk: int | None
    disk_free: int


class Sized(TypedDict):
    path: str
    bytes: int
    files: int


class NotSent(TypedDict):
    path: str
    reason: str
    bytes: int
    files: int
    measured: bool


class Tree(TypedDict):
    root: str
    bytes: int
    count: int
    folders: list[Sized]
    files: list[Sized]
    left_out: list[NotSent]
    left_out_count: int


class File(TypedDict):
    path: str
    size: int
    sha256: str


class LeftOut(TypedDict):
    path: str
    why: str


class Process(TypedDict):
    pid: int
    command: str
    state: str
    gpus: list[int]


class OnDisk(TypedDict):
    path: str
    bytes: int
    why: str


class Decision(TypedDict):
    run_id: str
    group: str
    goes: bool
    why: str


class Checkpoint(TypedDict):
    name: str
    step: int | None
    metrics: dict[str, float]
    size: int
    resumable: bool
    here: bool
    on_box: bool


class Answer(TypedDict):
    prompt: str
    text: str
    tokens: int
    seconds: float
    ended: bool


class Comparison(TypedDict):
    rows: int
    difference: float | None
    worst_row: int
    limit: float
    agree: int
    answers: int
    problems: list[str]


class Model(TypedDict):
    folder: str
    kind: str
    passed: bool
    device: str
    device_name: str
    dtype: str
    torch: str
    load_seconds: float
    samples: int
    samples_per_second: float
    tokens_per_second: float | None
    peak_memory: int
    counts: dict[str, int] | None
    texts: list[str]
    comparison: Comparison | None
    not_opened: list[str]


class Host(TypedDict):
    typed: str
    address: str
    known_as: str
    volume: str | None
    seen_at: float | None
    fingerprints: list[str]


class Problem(TypedDict):
    path: str
    line: int
    column: int
    set: str | None
    message: str


class JobFile(TypedDict):
    path: str
    ok: bool
    problems: list[Problem]
    job: dict[str, object] | None
    summary: str | None
    warnings: list[str]


class Fetched(TypedDict):
    into: str
    complete: bool
    new: list[File]
    kept: int
    bytes: int
    left_out: list[LeftOut]


# What the commands print


class Init(TypedDict):
    file: str
    findings: list[str]


class Validate(TypedDict):
    jobs: list[JobFile]


class Check(TypedDict):
    job: str
    ready: bool
    findings: list[Finding]
    forecasts: list[Forecast]
    would_send: dict[str, Tree]


class DryRun(TypedDict):
    ready: bool
    jobs: list[Check]


class Submit(TypedDict):
    runs: list[Run]


class FollowedFetch(Fetched):
    run_id: str


class FollowedRun(Run):
    fetched: FollowedFetch | None
    smoke_test: list[Model] | None
    error: Error | None


class Follow(TypedDict):
    runs: list[FollowedRun]


class List(TypedDict):
    runs: list[Run]
    damaged: list[str]
    more: int


class ListOfHost(TypedDict):
    host: str
    runs: list[Run]


class RunNow(Run):
    unreachable: str | None
    eta_seconds: float | None


class Logs(Run):
    log: str


class Fetch(Run, Fetched):
    pass


class Stop(Run):
    device_holders: list[Process]


class StopAll(TypedDict):
    runs: list[Stop]


class Done(Run):
    safe_to_destroy: bool
    reasons: list[str]
    files: int
    left_out: list[LeftOut]
    home: list[str]
    given_up: list[str]


class Checkpoints(Run):
    checkpoints: list[Checkpoint]


class Sample(Run):
    on_box: bool
    answers: list[Answer]


class SmokeTest(TypedDict):
    run_id: str | None
    passed: bool
    models: list[Model]


class Hosts(TypedDict):
    hosts: list[Host]


class Forgotten(TypedDict):
    host: str
    keys_removed: int


class Moved(TypedDict):
    old: str
    new: str
    runs: list[str]
    left: list[str]
    keys_removed: int


class Volume(TypedDict):
    host: str
    volume: str


class Clean(TypedDict):
    host: str
    dry_run: bool
    experiment: list[Decision]
    removed: list[OnDisk]
    kept: list[OnDisk]
    bytes: int


Document = (
    Failure | Init | Validate | Check | DryRun | Submit | Follow | List | ListOfHost | Run | RunNow | Logs | Fetch | Stop
    | StopAll | Done | Checkpoints | Sample | SmokeTest | Hosts | Forgotten | Moved | Volume | Clean
)  # fmt: skip
