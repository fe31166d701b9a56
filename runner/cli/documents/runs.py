"""One run, which ``list``, ``status``, ``submit`` and all others print in the same shape, and several of them."""

from __future__ import annotations

from typing import TypedDict


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
    other_hosts: list[str]
    created_at: float | None
    attempted: bool
    launched: bool
    not_started: NotStarted | None
    parent: str | None
    went_on_as: str | None
    experiment: str | None
    submission: str | None
    engine: str | None
    status: Status | None
    seen_at: float | None
    elapsed_seconds: float | None
    cost: float | None
    fetched_into: str | None
    done: bool


class List(TypedDict):
    runs: list[Run]
    damaged: list[str]
    more: int
    unreachable: list[str]


class GpuSetAside(TypedDict):
    gpu: int
    runs: list[str]
    at: float
    evidence: str


class ListOfHost(TypedDict):
    host: str
    runs: list[Run]
    set_aside: list[GpuSetAside]


class RunNow(Run):
    unreachable: str | None
    eta_seconds: float | None
    cost_at_end: float | None


class Watch(TypedDict):
    runs: list[RunNow]


class Logs(Run):
    log: str


class Process(TypedDict):
    pid: int
    command: str
    state: str
    gpus: list[int]


class Stop(Run):
    device_holders: list[Process]


class StopAll(TypedDict):
    runs: list[Stop]
