"""Why a command ended with an error."""

from __future__ import annotations

from typing import TypedDict


class Error(TypedDict):
    kind: str
    message: str
    meaning: str
    hint: str
    exit_code: int


class Failure(TypedDict):
    error: Error
