"""Trees that came from the laptop: copied by hard links, remembered in numbers, taken over under their final name.

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
from typing import Dict, Iterator, List, Optional, Tuple, Union

from remote_payload.agent.files import read_json, write_json
from remote_payload.agent.paths import BoxPaths, RunPaths

# Path → [size, mtime in ns], or [link target].
Entries = Dict[str, List[Union[int, str]]]

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
    for path, status in _walk(tree):
        if stat.S_ISREG(status.st_mode):
            entries[path] = [status.st_size, status.st_mtime_ns]
        elif stat.S_ISLNK(status.st_mode):
            entries[path] = [os.readlink(os.path.join(tree, path))]
    return entries


def stat_digest(tree: str) -> str:
    """A digest of names, sizes and times in ``tree`` (no content is read): another one when the tree was changed."""
    return digest_of(describe(tree))


def digest_of(entries: Entries) -> str:
    """The same of entries that were read before."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode("ascii")).hexdigest()


def record_code(run: RunPaths, digest: str) -> None:
    """Writes ``snapshot.json``: the laptop's digest and what ``code/`` holds, before anything is linked into it."""
    write_json(run.snapshot, {"digest": digest, "entries": describe(run.code)})


def find_code(paths: BoxPaths, digest: str) -> Optional[str]:
    """The id of the newest run whose code has this digest and lies there as it was pushed, or None."""
    for run in runs_newest_first(paths):
        snapshot = read_json(run.snapshot)
        if snapshot and snapshot.get("digest") == digest and _unchanged(run.code, snapshot):
            return run.run_id
    return None


def link_code(source: RunPaths, run: RunPaths) -> None:
    """Makes ``run``'s code and its record what ``source`` was pushed with, by hard links. Raises OSError (ESTALE: changed)."""
    snapshot = read_json(source.snapshot)
    if not snapshot or not _unchanged(source.code, snapshot):
        raise OSError(errno.ESTALE, "the code of run %s was changed on the box" % source.run_id)
    _link_entries(source.code, run.code, snapshot["entries"])
    _link(source.snapshot, run.snapshot)  # the same files, with the same sizes and times


def latest_code(paths: BoxPaths, job_name: str) -> Optional[str]:
    """What to give rsync as --link-dest: the newest run's code of this job, else of any job; None on a new box."""
    runs = [run for run in runs_newest_first(paths) if os.path.isfile(run.snapshot) and os.path.isdir(run.code)]
    same_job = [run for run in runs if run.run_id[:-21] == job_name]  # minus -YYYYMMDD-HHMMSS-ffff
    return (same_job or runs)[0].code if runs else None


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


def _walk(tree: str) -> Iterator[Tuple[str, os.stat_result]]:
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


def _unchanged(tree: str, snapshot: Dict[str, object]) -> bool:
    entries = snapshot.get("entries")
    if not isinstance(entries, dict):
        return False
    prefix = tree + "/"
    try:
        for path, expected in entries.items():
            status = os.lstat(prefix + path)
            if stat.S_ISLNK(status.st_mode):
                if expected != [os.readlink(prefix + path)]:
                    return False
            elif expected != [status.st_size, status.st_mtime_ns]:
                return False
    except OSError:
        return False
    return True


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
    partial = "%s.partial-%d" % (target, os.getpid())
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "already there", target)
    os.makedirs(partial)
    try:
        link_into(source, partial, entries)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _link(source: str, target: str) -> None:
    try:
        return os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
    shutil.copy2(source, target, follow_symlinks=False)
