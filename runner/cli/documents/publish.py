"""What was published on the Hub, or what would be."""

from __future__ import annotations

from typing import TypedDict


class PublishedFile(TypedDict):
    path: str
    size: int
    state: str


class StaysHere(TypedDict):
    path: str
    reason: str


class Publish(TypedDict):
    run_id: str | None
    folder: str
    repository: str
    page: str
    private: bool
    dry_run: bool
    commit: str | None
    files: list[PublishedFile]
    removed: list[str]
    left_out: list[StaysHere]
    base: str | None
    licence: str
    remarks: list[str]
