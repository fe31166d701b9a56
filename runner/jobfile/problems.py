"""A problem of a job file and where it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from remote_payload.agent.wire.redact import redact
from runner.domain.errors import JobFileError


@dataclass(frozen=True, order=True)
class Place:
    """Line and column, from 1; for a value of the command line ``override`` is its ``--set`` key."""

    line: int = 1
    column: int = 1
    override: str = ""


@dataclass(frozen=True)
class Problem:
    """One problem; as text ``path:line:col: message`` or ``--set key: message``."""

    path: str
    place: Place
    message: str

    def __str__(self) -> str:
        if self.place.override:
            return f"--set {escaped(self.place.override)}: {self.message}"
        return f"{escaped(self.path)}:{self.place.line}:{self.place.column}: {self.message}"


class InvalidJobFile(JobFileError):
    """All problems of one job file, in the order of its lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda problem: (problem.path, problem.place, problem.message))
        super().__init__("\n".join(map(str, self.problems)), meaning="Nothing was contacted or sent.")


def escaped(text: str) -> str:
    """One line of text without control characters or lone surrogates: safe to print, whatever a name contains."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def quoted(value: object, limit: int = 60) -> str:
    """A value as it is written in the file: text in quotes, truncated to ``limit`` characters, secrets redacted."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int | float):
        return str(value)
    text = escaped(redact(str(value)))
    return f"'{text}'" if len(text) <= limit else f"'{text[: limit - 3]}…'"


def suggestion(word: str, known: Iterable[str]) -> str:
    """``": did you mean x?"`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else ""
