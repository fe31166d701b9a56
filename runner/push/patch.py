"""The few files that changed since the box got this code last, small enough to be sent inside a request."""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from dataclasses import dataclass

from remote_payload.agent.wire.marks import MARK, MAX_BYTES, MAX_OFFERED, mark, together, whole_seconds
from runner.domain.answers.box import EarlierCode
from runner.domain.requests import PatchBase, PatchedFile, PatchedLink, PatchedTree
from runner.push.base import Base
from runner.push.digest import fingerprint
from runner.push.selection import Entry, Selection

MAX_FILES = 500


@dataclass(frozen=True)
class Patch:
    """The agent's ``patch`` request without the attempt's name, and the bytes that go with it."""

    args: PatchedTree
    data: bytes
    total_bytes: int  # of the files, before compression

    @property
    def files(self) -> int:
        return len(self.args["files"])


def make_patch(selection: Selection, earlier: EarlierCode | None) -> Patch | None:
    """What turns the code of an earlier run into the selected one; None where there is none, or rsync does it better.

    Raises OSError for a file that cannot be read.
    """
    there = _marks(earlier) if earlier else []
    if not earlier or not there:
        return None
    known, base = set(there), Base.completed("", earlier.read_at)
    marks = [_mark_among(known, entry, base.may_differ(entry)) for entry in selection.files]
    wanted = set(marks)
    changed = [entry for entry, its in zip(selection.files, marks, strict=True) if its not in known]
    without = [number for number, its in enumerate(there) if its not in wanted]
    return _made(selection, changed, {"run_id": earlier.run_id}, without, together(marks))


def patch_attempt(attempt: str, before: Selection, now: Selection) -> Patch | None:
    """What turns the attempt that has brought ``before`` into one that is ``now``; None where rsync does it better. Raises OSError."""
    there, wanted = set(before.files), set(now.files)
    changed = [entry for entry in now.files if entry not in there]
    without = [number for number, entry in enumerate(before.files) if entry not in wanted]
    return _made(now, changed, {"earlier": attempt}, without, fingerprint(now))


def _made(selection: Selection, changed: list[Entry], base: PatchBase, without: list[int], marks: str) -> Patch | None:
    total = sum(entry.size for entry in changed if entry.kind == "file")
    if len(changed) > MAX_FILES or total > MAX_BYTES:
        return None
    content = b"".join(_content(selection, entry) for entry in changed if entry.kind == "file")
    files = [_described(entry) for entry in changed]
    return Patch({**base, "without": without, "files": files, "marks": marks}, zlib.compress(content), total)


def _marks(earlier: EarlierCode) -> list[bytes]:
    """The marks of the earlier code's files, in its order; none where they are damaged."""
    try:
        packed = base64.b64decode(earlier.marks, validate=True)
    except binascii.Error:
        return []
    return [packed[at : at + MARK] for at in range(0, min(len(packed), MAX_OFFERED * MARK), MARK)]


def _mark_among(known: set[bytes], entry: Entry, doubted: bool) -> bytes:
    """The entry's mark, with its time in whole seconds where the box has it so, unless another version may have had the same second."""
    path, target = os.fsencode(entry.path), os.fsencode(entry.target) if entry.kind == "link" else None
    exact = mark(path, entry.size, entry.mtime_ns, entry.mode, target)
    if exact in known or doubted:
        return exact
    rounded = mark(path, entry.size, whole_seconds(entry.mtime_ns), entry.mode, target)
    return rounded if rounded in known else exact


def _described(entry: Entry) -> PatchedFile | PatchedLink:
    if entry.kind == "link":
        return {"path": entry.path, "target": entry.target}
    return {"path": entry.path, "size": entry.size, "mtime_ns": entry.mtime_ns, "mode": entry.mode}


def _content(selection: Selection, entry: Entry) -> bytes:
    with open(os.path.join(selection.root, entry.path), "rb") as file:
        return file.read(entry.size)
