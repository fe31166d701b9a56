"""Runs that were followed to their end, and what came home of them."""

from __future__ import annotations

from typing import TypedDict

from runner.cli.documents.errors import Error
from runner.cli.documents.files import Fetched
from runner.cli.documents.models import Model
from runner.cli.documents.runs import Run


class FollowedFetch(Fetched):
    run_id: str


class FollowedRun(Run):
    fetched: FollowedFetch | None
    smoke_test: list[Model] | None
    error: Error | None


class Follow(TypedDict):
    runs: list[FollowedRun]


class KeptRun(Run):
    checkpoint: str | None
    goes_on_as: str | None
    new_files: int
    new_bytes: int
    error: Error | None


class Keep(TypedDict):
    runs: list[KeptRun]
