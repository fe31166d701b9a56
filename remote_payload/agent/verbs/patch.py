"""Verb ``patch``: makes a tree of an earlier one and a few new files, which travel with the request: rsync takes 11 round trips more.

The earlier tree is a run's code, of which the probe offered the marks (``marks.py``): the laptop names the files that it does not have any
more, and sends those that have no mark there. Or it is an attempt of the same push, where files were edited meanwhile.
"""

import base64
import os
import stat
import zlib
from typing import TYPE_CHECKING, FrozenSet, List, NamedTuple, Optional, Tuple

from remote_payload.agent.box import incoming, snapshot
from remote_payload.agent.box.files import new_folder, read_json
from remote_payload.agent.box.snapshot import Entry
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.marks import MARK, MAX_BYTES, MAX_OFFERED, mark, together
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, check_run_id
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Patched
    from remote_payload.agent.wire.box_facts import PatchOffer

GONE = b"\0" * MARK  # for a file that was removed: no file has this mark


def offer(paths: BoxPaths, job_name: str) -> "Optional[PatchOffer]":
    """``{run_id, marks}`` of the newest code, marks in the order of paths and in base64; None where there is none, or it is too large."""
    code = snapshot.latest_code(paths, job_name)
    if code is None:
        return None
    run = paths.run(os.path.basename(os.path.dirname(code)))
    entries = _in_order(run)
    if not entries or len(entries) > MAX_OFFERED:
        return None
    marks = b"".join(_mark_of(run.code, path) for path, _ in entries)
    encoded = base64.b64encode(marks).decode("ascii")
    return {"run_id": run.run_id, "marks": encoded, "read_at": snapshot.read_at(run.code)}


class NewFile(NamedTuple):
    """One file that travels with the request, or (``target``) a link."""

    path: str
    target: Optional[str]
    size: int
    mtime_ns: int
    mode: int


class PatchRequest(NamedTuple):
    """The attempt to make, and its base. ``without`` are numbers of files in the base, in the order of paths; ``marks`` is the fingerprint
    that the result must have.
    """

    incoming: Optional[str]
    earlier: Optional[str]  # the base: an attempt, or else
    run_id: Optional[str]  # a run's code
    without: FrozenSet[int]
    files: List[NewFile]
    marks: str


def patch(request: Request) -> "Patched":
    """Makes the attempt ``incoming`` from the code of run ``run_id`` or from the attempt ``earlier``: links to its files but those
    numbered in ``without`` (in the order of paths), and the ``files`` (``{path, size, mtime_ns, mode}`` or ``{path, target}``) whose
    bytes follow as one compressed blob.

    Raises AgentError TransferInterrupted where the result does not have the fingerprint ``marks``; nothing is made then.
    """
    asked = _read(request.fields("TransferInterrupted"))
    source, listed = _source(request.paths, asked)
    content = memoryview(_unpacked(request))
    kept = {path: entry for number, (path, entry) in enumerate(listed) if number not in asked.without}
    try:
        with new_folder(incoming.place(request.paths, asked.incoming)) as tree:
            snapshot.link_into(source, tree, kept)
            for file in asked.files:
                content = content[_write(tree, file, content) :]
            if content or not _is_expected(tree, [*kept, *(file.path for file in asked.files)], asked):
                raise _failed("the files it begins with were changed")
    except OSError as error:
        raise _failed(error.strerror or "the file system refused") from error
    return {"files": len(kept) + len(asked.files)}


def _read(asked: Fields) -> PatchRequest:
    return PatchRequest(
        asked.optional_text("incoming"),
        asked.optional_text("earlier"),
        None if "earlier" in asked else asked.run_id(),
        frozenset(asked.wholes("without")),
        [_read_file(file) for file in asked.list_of_fields("files")],
        asked.text("marks"),
    )


def _read_file(asked: Fields) -> NewFile:
    path = asked.text("path")
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise _failed("a path that leads out of the code")
    return NewFile(
        path, asked.optional_text("target"), asked.whole("size"), asked.whole("mtime_ns"), asked.whole("mode")
    )


def _source(paths: BoxPaths, asked: PatchRequest) -> Tuple[str, List[Tuple[str, Entry]]]:
    """The tree to begin with and its listed files, in the order of paths."""
    if asked.earlier:
        tree = incoming.place(paths, asked.earlier)
        try:
            return tree, sorted(snapshot.describe(tree).items())
        except OSError as error:
            raise _failed(error.strerror or "it cannot be read") from None
    run = paths.run(check_run_id(asked.run_id))
    return run.code, _in_order(run)


def _is_expected(tree: str, listed: List[str], asked: PatchRequest) -> bool:
    """Marks with exact times where the base is a run's (the probe offered them), in whole seconds where it is an attempt."""
    if asked.earlier:
        return snapshot.fingerprint(tree) == asked.marks
    return together([_mark_of(tree, path) for path in listed]) == asked.marks


def _in_order(run: RunPaths) -> List[Tuple[str, Entry]]:
    recorded = read_json(run.snapshot) or {}
    return sorted(recorded.get("entries", {}).items())


def _mark_of(tree: str, path: str) -> bytes:
    place = os.path.join(tree, path)
    try:
        about = os.lstat(place)
        target = os.fsencode(os.readlink(place)) if stat.S_ISLNK(about.st_mode) else None
    except OSError:
        return GONE
    return mark(os.fsencode(path), about.st_size, about.st_mtime_ns, about.st_mode & 0o777, target)


def _unpacked(request: Request) -> bytes:
    packed = zlib.decompressobj()
    try:
        content = packed.decompress(b"".join(request.blobs()), MAX_BYTES)
    except zlib.error:
        raise _failed("the files arrived damaged") from None
    if packed.unconsumed_tail or not packed.eof:
        raise _failed("not all of the files arrived")
    return content


def _write(tree: str, file: NewFile, content: memoryview) -> int:
    """Writes one file or link; how many bytes of ``content`` belong to it."""
    place = os.path.join(tree, file.path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if file.target is not None:
        os.symlink(file.target, place)
        return 0
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        size = opened.write(content[: file.size])
        opened.flush()
        os.fchmod(descriptor, file.mode)
        os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))
    return size


def _failed(why: str) -> AgentError:
    return AgentError("TransferInterrupted", "the changed files could not be put in place: %s" % why)
