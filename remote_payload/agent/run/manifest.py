"""The manifest of a run: each file of ``outputs/`` with size and sha256, at the end or while the run trains.

While it trains only files that will not change are listed: those in complete folders (a folder with a
``manifest.json``, which is written last), append-only logs with the bytes they have at this moment, and of a program of the user's own
what ``checkpoints/complete.py`` calls complete. Links, devices,
unfinished files and unusable names are never listed, nor files that the ``outputs`` of a recipe's job do not name; ``left_out`` says why.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import time
import unicodedata
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Tuple, cast

from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.run.checkpoints import running
from remote_payload.agent.run.checkpoints.endings import append_only, is_unfinished
from remote_payload.agent.run.checkpoints.own_manifests import complete_folders, is_inside
from remote_payload.agent.run.own_hashes import Known, hashed_by_the_payload
from remote_payload.agent.wire.paths import RunPaths

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Artifact, LeftOut, Manifest

MAX_FILES = 400000  # as many as fit into one frame
MAX_PATH = 1024  # bytes
# Names that the laptop does not accept for results: it would refuse the whole list.
FORBIDDEN = (".git", ".ssh", ".gpurun-staging", ".gpurun-fetched.json")
MAX_LEFT_OUT = 100
# A file that changed less than this before it was read may change again within one tick of its filesystem's clock: its hash is not kept.
SETTLED_NS = 2 * 10**9

Progress = Callable[[int, int], None]


def build(
    run: RunPaths, complete: bool = True, progress: Optional[Progress] = None, everything: bool = False
) -> Manifest:
    """The manifest of ``run``'s outputs: ``{complete, files: [{path, size, sha256, mtime}], folders, left_out}``.

    ``complete``: the run is over, and every regular file is listed. Paths are relative to ``outputs/``;
    ``progress(done, total)`` counts the bytes hashed and may raise to stop. Hashes are kept in the run's folder by
    (path, size, times, inode), so that a second manifest only walks the tree; those that the payload computed as it wrote a folder
    are taken over (``own_hashes.py``). With ``everything`` the outputs that the job does not name are listed too.
    Raises OSError where outputs cannot be read.
    """
    found, left_out = find(run, everything)
    folders = complete_folders(run.outputs, found)
    written = [] if complete else running.judge_written(run, found, folders)
    if not complete:
        found = running.settled(found, folders, written)
    hashes = _Hashes(run, found, progress, hashed_by_the_payload(run.outputs, folders, found))
    files = []
    for path in sorted(found)[:MAX_FILES]:
        settled = complete or not append_only(path) or is_inside(path, folders)
        entry = hashes.entry(path, grows=not settled)
        if entry is None:
            _leave_out(left_out, path, "changed while it was read")
        else:
            files.append(entry)
    if len(found) > MAX_FILES:
        _leave_out(left_out, "…", "%d files more than the %d that are listed" % (len(found) - MAX_FILES, MAX_FILES))
    hashes.save()
    files = running.without_changed(run.outputs, files, written)
    for path, why in _removed(run).items():
        _leave_out(left_out, path, why, dispensable=True)
    for judged in written:
        if judged.why is not None:
            _leave_out(left_out, judged.unit.path, judged.why, dispensable=True)
    return {"complete": complete, "files": files, "folders": folders, "left_out": left_out}


def write(run: RunPaths) -> Manifest:
    """Builds the manifest of a run that is over and writes ``manifest.json``; gives it. Raises OSError."""
    built = build(run, complete=True)
    write_json(run.manifest, built)
    return built


def read(run: RunPaths) -> Optional[Manifest]:
    """The manifest that ``write`` wrote, None where the file is missing or damaged."""
    value = read_json(run.manifest)
    usable = value is not None and all(isinstance(value.get(name), list) for name in ("files", "folders", "left_out"))
    return cast("Manifest", value) if usable else None


def find(run: RunPaths, everything: bool = False) -> Tuple[Dict[str, os.stat_result], List[LeftOut]]:
    """The files of the outputs that are listed, by path, and the paths that are left out, with the reason."""
    outputs = run.outputs
    found: Dict[str, os.stat_result] = {}
    left_out: List[LeftOut] = []
    links: List[str] = []
    for path, status in _walk(outputs, None if everything else _wanted(run), left_out):
        if stat.S_ISREG(status.st_mode):
            found[path] = status
        elif stat.S_ISLNK(status.st_mode):
            links.append(path)
        else:
            _leave_out(left_out, path, "not a regular file")
    for path in _twins(found):
        del found[path]
        _leave_out(left_out, path, "on a Mac it would be the same file as another one")
    for path in links:
        _leave_out(left_out, path, "a link", dispensable=_is_listed(outputs, path, found))
    return found, left_out


def _removed(run: RunPaths) -> Dict[str, str]:
    """What ``keep_finished`` removed, by path, with the reason."""
    value = read_json(run.removed) or {}
    paths, why = value.get("paths"), value.get("why")
    return dict.fromkeys(map(str, paths), str(why)) if isinstance(paths, list) else {}


def _wanted(run: RunPaths) -> Optional[List[str]]:
    """The outputs of a recipe that the job names; None for all of them. A command writes to the links of its outputs alone."""
    job = read_json(run.job) or {}
    names = job.get("outputs") if job.get("recipe") else None
    return [str(name).rstrip("/") for name in names] if isinstance(names, list) else None


def _is_wanted(path: str, wanted: Optional[List[str]]) -> bool:
    """Whether a path is one of the names, lies inside one, or has one inside."""
    if wanted is None:
        return True
    return any((path + "/").startswith(name + "/") or name.startswith(path + "/") for name in wanted)


def _is_listed(outputs: str, link: str, found: Dict[str, os.stat_result]) -> bool:
    """Whether the target of a link is listed under its own name, so that no result is lost without the link."""
    top = os.path.realpath(outputs)
    target = posixpath.relpath(os.path.realpath(os.path.join(outputs, link)), top)
    return target in found or any(path.startswith(target + "/") for path in found)


def _twins(found: Dict[str, os.stat_result]) -> List[str]:
    """Paths that differ from an earlier one, or have a folder that differs, only in case or Unicode form."""
    spelt: Dict[str, str] = {}
    twins = []
    for path in sorted(found):
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            if spelt.setdefault(unicodedata.normalize("NFC", prefix).casefold(), prefix) != prefix:
                twins.append(path)
                break
    return twins


def _walk(outputs: str, wanted: Optional[List[str]], left_out: List[LeftOut]) -> Iterator[Tuple[str, os.stat_result]]:
    folders = [""] if os.path.isdir(outputs) and not os.path.islink(outputs) else []
    while folders:
        below = folders.pop()
        try:
            with os.scandir(os.path.join(outputs, below)) as listing:
                entries = list(listing)
        except OSError as error:  # gone meanwhile, or deeper than the system can name
            _leave_out(left_out, below, error.strerror or "unreadable")
            continue
        for entry in entries:
            path = posixpath.join(below, entry.name)
            why = _unlistable(path, entry.name)
            if why:
                _leave_out(left_out, path, why, dispensable=why == "unfinished")
            elif not _is_wanted(path, wanted):
                _leave_out(left_out, path, "outputs: in the job file does not name it", dispensable=True)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                try:
                    yield path, entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # removed meanwhile, for example by a retention rule


def _unlistable(path: str, name: str) -> str:
    """Why a file of this name is not offered, "" if it is. The laptop checks the same, and more."""
    try:
        if len(path.encode("utf-8")) > MAX_PATH:
            return "its name is too long"
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(unicodedata.category(character).startswith("C") for character in name) or "\\" in name:
        return "odd characters in its name"
    if path.startswith("-") or name.lower() in FORBIDDEN:
        return "its name could be taken for something else"
    if is_unfinished(name):
        return "unfinished"
    return ""


def _leave_out(left_out: List[LeftOut], path: str, why: str, dispensable: bool = False) -> None:
    """``dispensable``: no result is lost without it. Results that are lost come first in the list."""
    shown = ascii(path)[1:-1][:200]
    if dispensable:
        left_out.append({"path": shown, "why": why, "dispensable": True})
    else:
        left_out.insert(0, {"path": shown, "why": why})
    del left_out[MAX_LEFT_OUT:]


class _Hashes:
    """sha256 of files. A file is read again only when it has changed."""

    def __init__(
        self, run: RunPaths, found: Dict[str, os.stat_result], progress: Optional[Progress], known: Dict[str, Known]
    ) -> None:
        self._outputs, self._known = run.outputs, known
        self._cache_path = posixpath.join(run.folder, "hashes.json")
        self._cached = read_json(self._cache_path) or {}
        self._used: Dict[str, List[Any]] = {}
        self._progress = progress
        self._done, self._total = 0, sum(status.st_size for status in found.values())

    def entry(self, path: str, grows: bool) -> Optional[Artifact]:
        """The file's line of the manifest; None when it is gone, no regular file, or written to while it was read."""
        for _ in range(2):
            try:
                descriptor = os.open(
                    os.path.join(self._outputs, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                )
            except OSError:
                return None
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    return None
                sha256 = self._sha256(path, file, before)
                after = os.fstat(descriptor)
            unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
            if sha256 and (unchanged or grows):
                return {"path": path, "size": before.st_size, "sha256": sha256, "mtime": before.st_mtime}
        return None

    def _sha256(self, path: str, file: Any, status: os.stat_result) -> Optional[str]:
        """The digest of the file's first ``st_size`` bytes; None when it has fewer."""
        # The time of the last change too: a file that replaces another may have its size, its time and its inode's number.
        identity = [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]
        cached = self._cached.get(path)
        if isinstance(cached, list) and cached[:-1] == identity:
            self._advance(status.st_size)
            self._used[path] = cached
            return str(cached[-1])
        known = self._known.get(path)
        if known is not None and known.is_of(status):
            self._advance(status.st_size)
            return known.sha256
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
        digest, remaining = hashlib.sha256(), status.st_size
        while remaining:
            block = file.read(min(remaining, 1 << 20))
            if not block:
                return None
            digest.update(block)
            remaining -= len(block)
            self._advance(len(block))
        if settled:
            self._used[path] = [*identity, digest.hexdigest()]
        return digest.hexdigest()

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)

    def save(self) -> None:
        """Writes the hashes for the next manifest; on a full disk the next one reads the files again."""
        if self._used != self._cached:
            try:
                write_json(self._cache_path, self._used)
            except OSError:
                pass
