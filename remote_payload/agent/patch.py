"""A run's code as an earlier run's with a few files replaced, which travel with the request.

The probe offers the marks (``marks.py``) of the newest code there is. The laptop names those it has no more and sends what
has no mark there. rsync would bring a connection of its own: 11 round trips.
"""

import base64
import os
import shutil
import stat
import zlib
from typing import Any, Dict, List, Optional, Tuple

from remote_payload.agent import fill, snapshot
from remote_payload.agent.files import read_json
from remote_payload.agent.marks import MARK, MAX_BYTES, MAX_OFFERED, mark, together
from remote_payload.agent.paths import BoxPaths, RunPaths, check_run_id
from remote_payload.agent.request import AgentError, Request

GONE = b"\0" * MARK  # stands for a file that is no longer there: nothing has this mark


def offer(paths: BoxPaths, job_name: str) -> Optional[Dict[str, Any]]:
    """``{run_id, marks}`` of the newest code, marks in the order of paths and in base64; None where there is none, or it is too large."""
    code = snapshot.latest_code(paths, job_name)
    if code is None:
        return None
    run = paths.run(os.path.basename(os.path.dirname(code)))
    entries = _in_order(run)
    if not entries or len(entries) > MAX_OFFERED:
        return None
    marks = b"".join(_mark_of(run.code, path) for path, _ in entries)
    return {"run_id": run.run_id, "marks": base64.b64encode(marks).decode("ascii")}


def patch(request: Request) -> Dict[str, Any]:
    """Makes ``incoming/<run_id>/code`` from the code of run ``base``: links to its files but those numbered in ``without``,
    and the ``files`` (``{path, size, mtime_ns, mode}`` or ``{path, target}``) whose bytes follow as one compressed blob.

    Raises AgentError TransferInterrupted where that does not give the tree that ``marks`` names; there is nothing then.
    """
    args = request.args
    run, base = (request.paths.run(check_run_id(args.get(name))) for name in ("run_id", "base"))
    target = fill.incoming(request.paths, run)
    content = memoryview(_unpacked(request))
    if os.path.lexists(target):
        raise _impossible("some of the code is there already")
    gone = set(args["without"])
    kept = {path: entry for number, (path, entry) in enumerate(_in_order(base)) if number not in gone}
    partial = "%s.partial-%d" % (target, os.getpid())
    os.makedirs(partial)
    try:
        snapshot.link_into(base.code, partial, kept)
        for file in args["files"]:
            content = content[_write(partial, file, content) :]
        marks = [_mark_of(partial, path) for path in [*kept, *(file["path"] for file in args["files"])]]
        if content or together(marks) != args["marks"]:
            raise _impossible("the code of run %s is not what it was" % base.run_id)
        os.rename(partial, target)
    except OSError as error:
        raise _impossible(error.strerror or "the file system refused") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"files": len(marks)}


def _in_order(run: RunPaths) -> List[Tuple[str, List[Any]]]:
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
        raise _impossible("what was sent arrived damaged") from None
    if packed.unconsumed_tail or not packed.eof:
        raise _impossible("what was sent is not whole")
    return content


def _write(tree: str, file: Dict[str, Any], content: memoryview) -> int:
    """Puts one file or link in place; the number of bytes of ``content`` that were its own."""
    path = str(file["path"])
    if path.startswith("/") or ".." in path.split("/"):
        raise _impossible("a path that leads out of the code")
    place = os.path.join(tree, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if "target" in file:
        os.symlink(str(file["target"]), place)
        return 0
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        size = opened.write(content[: file["size"]])
        opened.flush()
        os.fchmod(descriptor, file["mode"])
        os.utime(descriptor, ns=(file["mtime_ns"], file["mtime_ns"]))
    return size


def _impossible(why: str) -> AgentError:
    return AgentError("TransferInterrupted", "the changed files could not be put in place: %s" % why)
