"""Trees that came from the laptop: copied by hard links, recorded with sizes and times, taken over by later runs.

A run's ``snapshot.json`` lists what ``code/`` held when it was pushed. The payload writes into that folder afterwards
(bytecode, results, links to data and outputs), so a later run takes over the listed files only, and only while each
still has the size and time it was pushed with.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

from remote_payload.agent.box.files import new_folder, read_json, write_json
from remote_payload.agent.wire.marks import content_mark, mark, together, whole_seconds
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

# [size, mtime in ns], or [link target].
Entry = List[Union[int, str]]
Entries = Dict[str, Entry]  # by path

# Filesystems without hard links (network volumes, some FUSE), across two of them, or one inode linked too often.
NO_LINK = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES)


def describe(tree: str) -> Entries:
    """What lies in ``tree``: regular files and links by relative path (a file by itself: ""). Nothing else is listed.

    Raises OSError.
    """
    if not os.path.isdir(tree):
        status = os.lstat(tree)
        return {"": [status.st_size, status.st_mtime_ns]} if stat.S_ISREG(status.st_mode) else {}
    entries: Entries = {}
    for path, status in walk(tree):
        if stat.S_ISREG(status.st_mode):
            entries[path] = [status.st_size, status.st_mtime_ns]
        elif stat.S_ISLNK(status.st_mode):
            entries[path] = [os.readlink(os.path.join(tree, path))]
    return entries


def stat_digest(tree: str) -> str:
    """A digest of names, sizes and times in ``tree`` (no content is read): another one when the tree was changed."""
    return digest_of(describe(tree))


def digest_of(entries: Entries) -> str:
    """``stat_digest`` of entries that were read before."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode("ascii")).hexdigest()


def fingerprint(tree: str, contents: bool = False, permissions: bool = True) -> str:
    """One name (hex) for all that lies in ``tree``: paths, sizes, targets of links, times in whole seconds or (``contents``) what the
    files hold, and, unless the filesystem keeps none, ``permissions``. The laptop computes the same of the files that it
    selected (``runner/push/digest.py``).
    """
    mask = 0o777 if permissions else 0
    return together([_mark_in(tree, path, status, contents, mask) for path, status in walk(tree)])


def _mark_in(tree: str, path: str, status: os.stat_result, contents: bool, mask: int) -> bytes:
    name, mode = os.fsencode(path), status.st_mode & mask
    if stat.S_ISLNK(status.st_mode):
        return mark(name, 0, 0, 0, os.fsencode(os.readlink(os.path.join(tree, path))))
    if not stat.S_ISREG(status.st_mode):
        return mark(name, 0, 0, 0, b"\0neither a file nor a link")
    if contents:
        return content_mark(name, status.st_size, mode, sha256_of(os.path.join(tree, path)))
    return mark(name, status.st_size, whole_seconds(status.st_mtime_ns), mode)


def sha256_of(path: str) -> bytes:
    """The digest of a file's content. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.digest()


def record_code(run: RunPaths, digest: str, read_at: Optional[int] = None) -> None:
    """Writes ``snapshot.json``: the laptop's digest, what ``code/`` holds before anything is linked into it, and when (by the laptop's
    clock) the laptop last checked that its files were the same: a file edited within that second may have the same size and time.
    """
    write_json(run.snapshot, {"digest": digest, "entries": describe(run.code), "read_at": read_at})


def find_code(paths: BoxPaths, digest: str) -> Optional[str]:
    """The id of the newest run whose code has this digest and is unchanged since it was pushed, or None."""
    for run in runs_newest_first(paths):
        snapshot = read_json(run.snapshot)
        if snapshot and snapshot.get("digest") == digest and _unchanged(run.code, snapshot):
            return run.run_id
    return None


def link_code(source: RunPaths, run: RunPaths, without: Sequence[str] = ()) -> None:
    """Makes ``run``'s code and its record what ``source`` was pushed with, by hard links; nothing below the paths ``without`` is looked
    at or taken. Raises OSError (ESTALE: changed).
    """
    entries = recorded(source, without)
    if entries is None or next(changed(source.code, entries), None) is not None:
        raise OSError(errno.ESTALE, "the code of run %s was changed on the box" % source.run_id)
    _link_entries(source.code, run.code, entries)
    _link(source.snapshot, run.snapshot)  # the same files, with the same sizes and times


def latest_code(paths: BoxPaths, job_name: str) -> Optional[str]:
    """The folder for rsync's --link-dest: the newest run's code of this job, else of any job; None on a new box."""
    runs = [run for run in runs_newest_first(paths) if os.path.isfile(run.snapshot) and os.path.isdir(run.code)]
    same_job = [run for run in runs if run.run_id[:-21] == job_name]  # minus -YYYYMMDD-HHMMSS-ffff
    return (same_job or runs)[0].code if runs else None


def read_at(code: str) -> Optional[int]:
    """When, by the laptop's clock, the laptop last checked that this code (from ``latest_code``) was what it had sent."""
    value = (read_json(RunPaths(os.path.dirname(code)).snapshot) or {}).get("read_at")
    return value if isinstance(value, int) else None


def runs_newest_first(paths: BoxPaths) -> List[RunPaths]:
    """Every run's paths, by the time in its id."""
    try:
        names = os.listdir(paths.runs)
    except OSError:
        return []
    runs = []
    for name in names:
        try:
            runs.append(paths.run(name))
        except ValueError:
            continue  # not ours
    return sorted(runs, key=lambda run: run.run_id[-20:], reverse=True)


def walk(tree: str) -> Iterator[Tuple[str, os.stat_result]]:
    """Everything in ``tree`` but folders, by relative path. Raises OSError."""
    folders = [""]
    while folders:
        below = folders.pop()
        with os.scandir(os.path.join(tree, below)) as listing:
            for entry in listing:
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                else:
                    yield path, entry.stat(follow_symlinks=False)


def recorded(run: RunPaths, without: Sequence[str] = ()) -> Optional[Entries]:
    """What the run's code was pushed with, by its record, but for what lies at or below the paths ``without``; None without a record."""
    entries = (read_json(run.snapshot) or {}).get("entries")
    if not isinstance(entries, dict):
        return None
    below = tuple(os.path.normpath(path) + "/" for path in without)
    return {path: entry for path, entry in entries.items() if not (path + "/").startswith(below)}


def changed(tree: str, entries: Entries) -> Iterator[str]:
    """The paths of ``entries`` that are not in ``tree`` as they were recorded."""
    prefix = tree + "/"
    for path, expected in entries.items():
        try:
            status = os.lstat(prefix + path)
            link = stat.S_ISLNK(status.st_mode)
            found: Entry = [os.readlink(prefix + path)] if link else [status.st_size, status.st_mtime_ns]
        except OSError:
            yield path
            continue
        if found != expected:
            yield path


def _unchanged(tree: str, snapshot: Dict[str, object]) -> bool:
    entries = snapshot.get("entries")
    return isinstance(entries, dict) and next(changed(tree, entries), None) is None


def link_into(source: str, folder: str, entries: Entries) -> None:
    """The entries of ``source`` below ``folder`` too, files by hard links. Raises OSError."""
    made = {folder}
    for path, entry in entries.items():
        place = os.path.join(folder, path)
        parent = os.path.dirname(place)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        if len(entry) == 1:
            os.symlink(str(entry[0]), place)
        else:
            _link(os.path.join(source, path), place)


def _link_entries(source: str, target: str, entries: Entries) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "already there", target)
    with new_folder(target) as partial:
        link_into(source, partial, entries)


def _link(source: str, target: str) -> None:
    try:
        return os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
    shutil.copy2(source, target, follow_symlinks=False)
