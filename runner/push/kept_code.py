"""The code that runs had, kept on this machine: a run can go on elsewhere with it, whatever became of the folder that it came from.

    $GPURUN_HOME/code/<digest>/tree           a copy of every file that was sent, with its time and permissions
    $GPURUN_HOME/code/<digest>/entries.json   what was selected, and from which folder
    $GPURUN_HOME/code/newest.json             of each folder the copy that was made last

The digest is the one in the run's record. A file that did not change since the copy before is a hard link to that copy, never to the
user's own file, which may be edited in place. Only what is sent is copied, and nothing where a file looks like credentials.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from runner import files
from runner.domain import places
from runner.domain.answers.reading import Fields, Impossible, list_of, string, whole_between
from runner.domain.errors import StateError
from runner.domain.quantities import format_size
from runner.push.secrets import secret_inside, secret_name
from runner.push.selection import Entry, Selection

LARGEST = 1 << 30  # bytes of one copy
_DIGEST = re.compile(r"[0-9a-f]{64}")
_number = whole_between(-(1 << 63), 1 << 63)
SPARED = 3600.0  # seconds


class NotKept(Exception):
    """Why no copy of the code is kept, in words for the user."""


def keep(selection: Selection, digest: str) -> None:
    """Copies what is selected, unless there is a copy under this digest. Raises NotKept; nothing is left under the digest then."""
    folder = _folder(digest)
    if folder.is_dir():
        os.utime(folder)  # it is wanted again: ``prune`` leaves it for a while
        return
    if selection.total_bytes > LARGEST:
        raise NotKept(f"it has {format_size(selection.total_bytes)}, and at most {format_size(LARGEST)} are kept")
    unfinished = folder.with_name(f".{digest}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True, mode=0o700)
        os.chmod(folder.parent, 0o700)
        _copy_all(selection, unfinished / "tree", _newest(selection.root))
        value = {"root": str(selection.root), "entries": [asdict(entry) for entry in selection.files]}
        files.write_json(unfinished / "entries.json", value)
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not folder.is_dir():  # else another gpurun was quicker
                raise
        files.update_json(folder.parent / "newest.json", lambda newest: newest.update({str(selection.root): digest}))
    except StateError as error:
        raise NotKept(error.message) from None
    except OSError as error:
        raise NotKept(f"{error.filename or folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def find(digest: str) -> Selection | None:
    """The copy under this digest as a selection whose root is the copy; None where there is none, or it was damaged since."""
    if not _DIGEST.fullmatch(digest):
        return None
    folder = _folder(digest)
    try:
        entries = Fields(files.parse_json(folder / "entries.json"))("entries", list_of(_entry))
    except Impossible:
        return None
    tree = folder / "tree"
    return Selection(tree, list(entries), []) if all(_is_as(tree / entry.path, entry) for entry in entries) else None


@dataclass(frozen=True)
class Copies:
    """Copies on this machine, and the bytes that no other copy shares with them."""

    digests: tuple[str, ...] = ()
    bytes: int = 0


def prune(wanted: Collection[str], *, dry_run: bool, spared: float = SPARED) -> Copies:
    """Removes the copies of all digests but ``wanted``, and what an interrupted ``keep`` has left; tells which.

    What was kept in the last ``spared`` seconds stays: the run that it is for may not have started yet.
    """
    top, since = places.kept_code(), time.time() - spared
    old = [path for path in top.iterdir() if path.is_dir() and path.stat().st_mtime < since] if top.is_dir() else []
    gone = [path for path in old if path.name not in wanted]
    found = Copies(tuple(sorted(path.name for path in gone if _DIGEST.fullmatch(path.name))), _bytes_of(gone))
    for path in () if dry_run else gone:
        shutil.rmtree(path, ignore_errors=True)
    return found


def same_content(first: Selection, second: Selection) -> list[str]:
    """The paths of which the two selections differ, in name, kind, permissions or content; times do not count."""
    one, two = ({entry.path: entry for entry in each.files} for each in (first, second))
    differ = set(one) ^ set(two)
    for path in set(one) & set(two):
        a, b = one[path], two[path]
        facts = [(each.kind, each.mode, each.size, each.target) for each in (a, b)]
        same = facts[0] == facts[1] and (a.kind != "file" or a.mtime_ns == b.mtime_ns)
        if not same and (facts[0] != facts[1] or not _equal(first.root / path, second.root / path)):
            differ.add(path)
    return sorted(differ)


def _folder(digest: str) -> Path:
    return places.kept_code() / digest


def _newest(root: Path) -> Path | None:
    """The tree of the copy that was made last of this folder."""
    digest = files.read_json(places.kept_code() / "newest.json").get(str(root))
    return _folder(digest) / "tree" if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def _copy_all(selection: Selection, tree: Path, before: Path | None) -> None:
    """Raises NotKept for credentials and for a file that is not as it was selected."""
    tree.mkdir(mode=0o700)
    made = {""}
    for entry in selection.files:
        source, target = selection.root / entry.path, tree / entry.path
        above = os.path.dirname(entry.path)
        if above not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(above)
        if entry.kind == "link":
            os.symlink(entry.target, target)
            continue
        earlier = before / entry.path if before else None
        if earlier and _is_as(earlier, entry) and _link(earlier, target):
            continue
        if _looks_secret(source, entry):
            raise NotKept(f"{entry.path}, which code.include names, looks like credentials")
        _copy(source, target, entry)


def _looks_secret(source: Path, entry: Entry) -> bool:
    """Whether the file is one that only ``code.include`` sends: everything else with a secret is not selected."""
    folders = entry.path.split("/")[:-1]
    named = secret_name(os.path.basename(entry.path), False) or any(secret_name(name, True) for name in folders)
    return bool(named or secret_inside(str(source), entry.size))


def _copy(source: Path, target: Path, entry: Entry) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    if not _is_as(source, entry) or target.stat().st_size != entry.size:
        raise NotKept(f"{entry.path} was changed meanwhile")
    os.chmod(target, entry.mode)
    os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))


def _link(earlier: Path, target: Path) -> bool:
    try:
        os.link(earlier, target)
        return True
    except OSError:  # no hard links here, or too many of this file
        return False


def _is_as(path: Path, entry: Entry) -> bool:
    try:
        about = os.lstat(path)
        if entry.kind == "link":
            return stat.S_ISLNK(about.st_mode) and os.readlink(path) == entry.target
    except OSError:
        return False
    facts = (about.st_size, about.st_mtime_ns, about.st_mode & 0o777)
    return stat.S_ISREG(about.st_mode) and facts == (entry.size, entry.mtime_ns, entry.mode)


def _equal(one: Path, two: Path) -> bool:
    try:
        with open(one, "rb") as first, open(two, "rb") as second:
            while True:
                a, b = first.read(1 << 20), second.read(1 << 20)
                if a != b or not a:
                    return a == b
    except OSError:
        return False


def _entry(value: object) -> Entry:
    entry = Fields(value)
    path = entry("path", string)
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise Impossible(f"{path!r} is no path inside a folder", "path")
    size, mtime_ns, mode = (entry(name, _number) for name in ("size", "mtime_ns", "mode"))
    return Entry(path, size, mtime_ns, mode, entry("kind", string), entry("target", string))


def _bytes_of(folders: list[Path]) -> int:
    """Bytes that are free once these folders are gone: of files that have no other name elsewhere."""
    seen: dict[tuple[int, int], list[int]] = {}
    for folder in folders:
        for above, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    about = os.lstat(os.path.join(above, name))
                    facts = seen.setdefault((about.st_dev, about.st_ino), [about.st_size, about.st_nlink])
                    facts[1] -= 1
    return sum(size for size, left in seen.values() if left <= 0)
