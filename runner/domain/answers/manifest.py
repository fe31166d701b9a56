"""The files that a run has on its box, checked before any is requested: safe names, no two that are one file on a Mac, possible sizes."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from runner.domain.answers.reading import Fields, Impossible, boolean, list_of, optional, shown, text
from runner.domain.errors import ArtifactError
from runner.domain.terminal import clean

MAX_FILES = 500_000
MAX_PATH = 1024  # bytes
MAX_NAME = 255  # bytes of a file's or folder's own name: no disk has longer ones
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names that would be read as something else than a result once they lie here.
_FORBIDDEN_PARTS = {"", ".", "..", ".git", ".ssh", ".gpurun-staging", ".gpurun-fetched.json"}
MAX_LEFT_OUT = 1000


@dataclass(frozen=True)
class Artifact:
    """One file of a run's outputs: its path below ``outputs/``, bytes, sha256. ``grows`` marks a log as of now."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """Something in ``outputs/`` that is never fetched, and why. ``dispensable``: no result is lost without it."""

    path: str
    why: str
    dispensable: bool

    def __str__(self) -> str:
        return f"{self.path} ({self.why})"


@dataclass(frozen=True)
class Manifest:
    """``complete`` once the run has finished. Before that it lists the files that are complete already."""

    complete: bool
    files: tuple[Artifact, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def parse_manifest(answer: object) -> Manifest:
    """From the agent's answer. Raises ArtifactError naming the file that is refused, Impossible for an answer that is no manifest."""
    fields = Fields(answer)
    files = fields("files", lambda value: value)
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise _refused("it lists no files, or far too many")
    artifacts = tuple(_artifact(entry) for entry in files)
    _check_collisions(artifacts)
    left_out = fields("left_out", optional(list_of(_left_out, MAX_LEFT_OUT))) or ()
    return Manifest(fields("complete", boolean), artifacts, left_out)


def _left_out(value: object) -> LeftOut:
    fields = Fields(value)
    dispensable = fields("dispensable", optional(boolean)) or False
    return LeftOut(fields("path", text), fields("why", text), dispensable)


def _artifact(entry: Any) -> Artifact:
    if not isinstance(entry, dict):
        raise _refused("an entry is not an object")
    path, size, sha256 = entry.get("path"), entry.get("size"), entry.get("sha256")
    if not isinstance(path, str) or (why := _unusable(path)):
        raise _refused(f"a file is called {clean(ascii(path), 120)}{': ' + why if isinstance(path, str) else ''}")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 50:
        raise _refused(f"{path} is said to have {clean(repr(size), 40)} bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _refused(f"{path} has no sha256")
    return Artifact(path, size, sha256)


def output_path(value: object) -> str:
    """The path of an output below ``outputs/``. Raises Impossible for one that this machine would not use as a name."""
    if not isinstance(value, str) or _unusable(value):
        raise Impossible(f"{shown(value)} is no path of an output")
    return value


def _unusable(path: str) -> str:
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "not UTF-8"
    if len(encoded) > MAX_PATH or max(map(len, encoded.split(b"/"))) > MAX_NAME:
        return "too long"
    if any(unicodedata.category(char).startswith("C") for char in path) or "\\" in path:
        return "control characters or backslashes"
    if path.startswith(("/", "-")) or _FORBIDDEN_PARTS & set(path.casefold().split("/")):
        return "it would leave its folder, or pose as something else"
    return ""


def _check_collisions(artifacts: tuple[Artifact, ...]) -> None:
    """Two names that differ in case or Unicode form only are one file on a Mac; and a file cannot be a folder too."""
    seen: dict[str, str] = {}
    folders: set[str] = set()
    for artifact in artifacts:
        folded = unicodedata.normalize("NFC", artifact.path).casefold()
        if folded in seen:
            raise _refused(f"{artifact.path!a} and {seen[folded]!a} would be one file on a Mac")
        seen[folded] = artifact.path
        parts = folded.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if both := folders & seen.keys():
        raise _refused(f"{sorted(both)[0]!a} is a file and a folder")


def _refused(why: str) -> ArtifactError:
    return ArtifactError(
        f"the box's list of outputs cannot be accepted: {why}",
        meaning="Nothing was fetched; what was fetched before is as it was.",
        hint="If this is not a file of your own making, do not trust this box.",
    )
