"""A folder's content under one name, and whether it is still that."""

from __future__ import annotations

import hashlib
import os
import stat

from runner.push.selection import Entry, Selection


def digest(selection: Selection, checksum: bool = False) -> str:
    """sha256 (hex) over every entry's path, kind, permissions, size and time of change, or its content in place of the time.

    The first is what rsync compares and takes no reading; the second finds a folder that was copied or checked out again the same.
    Raises OSError when a file cannot be read.
    """
    whole = hashlib.sha256(b"gpurun snapshot 1\0")
    for entry in selection.files:
        told = _content(selection, entry) if checksum else str(entry.mtime_ns)
        facts = f"{entry.kind}\0{entry.mode:o}\0{entry.size}\0{told if entry.kind == 'file' else ''}\0"
        whole.update(os.fsencode(entry.path) + b"\0" + facts.encode("ascii") + os.fsencode(entry.target) + b"\0")
    return whole.hexdigest()


def changed(selection: Selection) -> list[str]:
    """Paths that are no longer what was selected. Call it after the push: what was sent may be half of one state, half of another."""
    top = os.path.join(selection.root, "")
    return [entry.path for entry in selection.files if not _same(top + entry.path, entry)]


def _content(selection: Selection, entry: Entry) -> str:
    if entry.kind != "file":
        return ""
    content = hashlib.sha256()
    with open(os.path.join(selection.root, entry.path), "rb", buffering=0) as file:
        while part := file.read(1 << 20):
            content.update(part)
    return content.hexdigest()


def _same(full: str, entry: Entry) -> bool:
    try:
        about = os.lstat(full)
        if entry.kind == "link":
            return stat.S_ISLNK(about.st_mode) and os.readlink(full) == entry.target
        facts = (about.st_size, about.st_mtime_ns, about.st_mode & 0o777)
        return stat.S_ISREG(about.st_mode) and facts == (entry.size, entry.mtime_ns, entry.mode)
    except OSError:
        return False
