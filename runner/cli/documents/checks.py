"""What is found before a run starts: a job file and its problems, the checks of a box, the forecast, what would be sent."""

from __future__ import annotations

from typing import TypedDict

from runner.cli.documents.errors import Error


class Init(TypedDict):
    file: str
    findings: list[str]


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


class Validate(TypedDict):
    jobs: list[JobFile]


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


class Check(TypedDict):
    job: str
    ready: bool
    findings: list[Finding]
    forecasts: list[Forecast]
    would_send: dict[str, Tree]


class CheckOfHost(TypedDict):
    host: str
    check: Check | None
    error: Error | None


class CheckHosts(TypedDict):
    ready: bool
    hosts: list[CheckOfHost]
