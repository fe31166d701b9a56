"""A submission: its runs, and with several boxes which of them each run goes to, and why."""

from __future__ import annotations

from typing import TypedDict

from runner.cli.documents.checks import Check
from runner.cli.documents.errors import Error
from runner.cli.documents.runs import Run


class Dealt(TypedDict):
    job: str
    run_id: str | None
    host: str
    why: str


class LeftOut(TypedDict):
    host: str
    error: Error


class Submit(TypedDict):
    runs: list[Run]
    dealt: list[Dealt]
    left_out: list[LeftOut]


class DryRun(TypedDict):
    ready: bool
    jobs: list[Check]
    dealt: list[Dealt]
    left_out: list[LeftOut]
