"""The digest of a selection, the marks with which the box checks it, and whether files have changed since it was made."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import zlib

from remote_payload.agent.wire.marks import content_mark, mark, together, whole_seconds
from runner.push.selection import Entry, Selection

AMBIGUOUS = 2.0  # seconds; what was edited so recently can be edited again with the same time in whole seconds

Contents = dict[str, bytes]  # path → sha256


def read_contents(selection: Selection) -> Contents:
    """The digest of each file's content, zeros for a deleted one, which the push notices. Raises OSError for an unreadable one."""
    return {entry.path: _content_if_there(selection, entry) for entry in selection.files if entry.kind == "file"}


def digest(selection: Selection, contents: Contents | None = None) -> str:
    """sha256 (hex) over every entry's path, kind, permissions, size and time of change, or its content in place of the time.

    The first is what rsync compares and takes no reading; the second finds a folder that was copied or checked out again the same.
    """
    whole = hashlib.sha256(b"gpurun snapshot 1\0")
    now = time.time_ns()
    for entry in selection.files:
        facts = f"{entry.kind}\0{entry.mode:o}\0{entry.size}\0{_version(selection, entry, contents, now)}\0"
        whole.update(os.fsencode(entry.path) + b"\0" + facts.encode("ascii") + os.fsencode(entry.target) + b"\0")
    return whole.hexdigest()


def _version(selection: Selection, entry: Entry, contents: Contents | None, now: int) -> str:
    """Distinguishes versions of an entry that have the same size."""
    if entry.kind != "file":
        return ""
    if contents is not None:
        return contents[entry.path].hex()
    coarse = entry.mtime_ns % 10**9 == 0 and entry.mtime_ns > now - AMBIGUOUS * 10**9
    if coarse and (content := _content_if_readable(selection, entry)):
        return f"{entry.mtime_ns} {content.hex()}"  # a filesystem of whole seconds (HFS+, exFAT): another edit may get the same time
    return str(entry.mtime_ns)


def fingerprint(selection: Selection, contents: Contents | None = None, permissions: bool = True) -> str:
    """The value that the agent's ``snapshot.fingerprint`` gives for a tree that is exactly the selection."""
    return together([_mark(entry, contents, permissions) for entry in selection.files])


def _mark(entry: Entry, contents: Contents | None, permissions: bool) -> bytes:
    path, mode = os.fsencode(entry.path), entry.mode if permissions else 0
    if entry.kind == "link":
        return mark(path, 0, 0, 0, os.fsencode(entry.target))
    if contents is not None:
        return content_mark(path, entry.size, mode, contents[entry.path])
    return mark(path, entry.size, whole_seconds(entry.mtime_ns), mode)


def listed(selection: Selection, contents: Contents | None) -> bytes:
    """The facts of every entry (compressed JSON), for the agent's ``compare``, which names the differences."""
    facts: dict[str, list[object]] = {}
    for entry in selection.files:
        if entry.kind == "link":
            facts[entry.path] = [entry.target]
        else:
            content = contents[entry.path].hex() if contents is not None else None
            facts[entry.path] = [entry.size, entry.mtime_ns // 10**9, entry.mode, content]
    return zlib.compress(json.dumps(facts).encode("ascii"))


def changed(selection: Selection) -> list[str]:
    """Paths that have changed since the selection. A folder (it ends in ``/``) has changed when a name was added or removed in it.

    Called after the push; empty means that what was selected was the whole folder at one moment.
    """
    top = os.path.join(selection.root, "")
    moved = [entry.path for entry in selection.files if not _same(top + entry.path, entry)]
    return moved + [f"{path}/" for path, before in selection.folders.items() if _time_of(top + path) != before]


def _time_of(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _content_if_readable(selection: Selection, entry: Entry) -> bytes | None:
    try:
        return _content(selection, entry)
    except OSError:  # another check names it
        return None


def _content_if_there(selection: Selection, entry: Entry) -> bytes:
    try:
        return _content(selection, entry)
    except (FileNotFoundError, NotADirectoryError):
        return bytes(hashlib.sha256().digest_size)


def _content(selection: Selection, entry: Entry) -> bytes:
    content = hashlib.sha256()
    with open(os.path.join(selection.root, entry.path), "rb", buffering=0) as file:
        while part := file.read(1 << 20):
            content.update(part)
    return content.digest()


def _same(full: str, entry: Entry) -> bool:
    try:
        about = os.lstat(full)
        if entry.kind == "link":
            return stat.S_ISLNK(about.st_mode) and os.readlink(full) == entry.target
        facts = (about.st_size, about.st_mtime_ns, about.st_mode & 0o777)
        return stat.S_ISREG(about.st_mode) and facts == (entry.size, entry.mtime_ns, entry.mode)
    except OSError:
        return False
