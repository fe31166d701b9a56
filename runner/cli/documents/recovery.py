"""The runs of a box that a restart interrupted, and what became of each."""

from __future__ import annotations

from typing import TypedDict

from runner.cli.documents.runs import Run


class Interrupted(TypedDict):
    run_id: str
    was: str
    what: str
    checkpoint: str | None
    successor: str | None
    why: str
    hint: str
    new: Run | None


class ResumeAll(TypedDict):
    host: str
    dry_run: bool
    runs: list[Interrupted]


class ResumeSweep(TypedDict):
    boxes: list[ResumeAll]
