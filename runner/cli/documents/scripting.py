"""What is there for scripts and coding agents."""

from __future__ import annotations

from typing import TypedDict


class Ssh(TypedDict):
    run_id: str | None
    host: str
    command: list[str]


class Exec(TypedDict):
    run_id: str | None
    host: str
    exit_code: int
    stdout: str
    stderr: str


class Skill(TypedDict):
    file: str
