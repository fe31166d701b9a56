"""What of a run is home, on its box or in neither place: files and checkpoints."""

from __future__ import annotations

from typing import TypedDict

from runner.cli.documents.runs import Run


class File(TypedDict):
    path: str
    size: int
    sha256: str


class LeftOut(TypedDict):
    path: str
    why: str


class Fetched(TypedDict):
    into: str
    complete: bool
    new: list[File]
    kept: int
    bytes: int
    left_out: list[LeftOut]
    report: str | None


class Fetch(Run, Fetched):
    pass


class Done(Run):
    safe_to_destroy: bool
    reasons: list[str]
    files: int
    left_out: list[LeftOut]
    home: list[str]
    given_up: list[str]
    destroyed: str | None


class DoneAll(TypedDict):
    boxes: list[Done]


class Checkpoint(TypedDict):
    name: str
    path: str
    step: int | None
    metrics: dict[str, float]
    size: int
    age: float | None
    resumable: bool
    here: bool
    on_box: bool


class BeingWritten(TypedDict):
    path: str
    step: int | None
    size: int
    age: float | None
    why: str


class Checkpoints(Run):
    checkpoints: list[Checkpoint]
    unfinished: list[BeingWritten]


class Report(TypedDict):
    path: str
    bytes: int
    notes: list[str]
