"""The hosts that gpurun knows, and the disk of one box."""

from __future__ import annotations

from typing import TypedDict


class Host(TypedDict):
    typed: str
    address: str
    known_as: str
    volume: str | None
    seen_at: float | None
    fingerprints: list[str]
    destroy: list[str] | None
    default: bool


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


class DefaultHost(TypedDict):
    host: str | None
    source: str | None


class HostSet(TypedDict):
    host: str
    volume: str | None
    destroy: list[str] | None


class UsedAgain(TypedDict):
    host: str
    gpu: int
    was_set_aside: bool


class Decision(TypedDict):
    run_id: str
    group: str
    goes: bool
    why: str


class OnDisk(TypedDict):
    path: str
    bytes: int
    why: str


class Clean(TypedDict):
    host: str
    dry_run: bool
    experiment: list[Decision]
    removed: list[OnDisk]
    kept: list[OnDisk]
    bytes: int
    code_copies: int
    code_bytes: int


class CleanRecords(TypedDict):
    dry_run: bool
    removed: list[str]


class CleanAll(TypedDict):
    boxes: list[Clean]
