"""A tree as an earlier one with a few files replaced, which travel with the request: rsync takes 11 round trips more.

The earlier one is a run's code, of which the probe offered the marks (``marks.py``): the laptop names those it has no more and sends
what has no mark there. Or it is what the same push has brought just now, when files were edited meanwhile.
"""

import base64
import os
import shutil
import stat
import zlib
from typing import Any, Dict, List, Optional, Tuple

from remote_payload.agent.box import incoming, snapshot
from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.marks import MARK, MAX_BYTES, MAX_OFFERED, mark, together
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, check_run_id
from remote_payload.agent.wire.request import AgentError, Request

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
    read_at = (read_json(run.snapshot) or {}).get("read_at")
    return {"run_id": run.run_id, "marks": base64.b64encode(marks).decode("ascii"), "read_at": read_at}


def patch(request: Request) -> Dict[str, Any]:
    """Makes the attempt ``incoming`` from the code of run ``run_id`` or from the attempt ``earlier``: links to its files but those
    numbered in ``without`` (in the order of paths), and the ``files`` (``{path, size, mtime_ns, mode}`` or ``{path, target}``) whose
    bytes follow as one compressed blob.

    Raises AgentError TransferInterrupted where that does not give the tree that ``marks`` names; there is nothing then.
    """
    args = request.args
    target = incoming.place(request.paths, args.get("incoming"))
    source, listed = _source(request.paths, args)
    content = memoryview(_unpacked(request))
    gone = set(args["without"])
    kept = {path: entry for number, (path, entry) in enumerate(listed) if number not in gone}
    partial = "%s.partial-%d" % (target, os.getpid())
    try:
        os.makedirs(partial)
        snapshot.link_into(source, partial, kept)
        for file in args["files"]:
            content = content[_write(partial, file, content) :]
        if content or not _is_meant(partial, [*kept, *(file["path"] for file in args["files"])], args):
            raise _impossible("what it begins with is not what it was")
        os.rename(partial, target)
    except OSError as error:
        raise _impossible(error.strerror or "the file system refused") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"files": len(kept) + len(args["files"])}


def _source(paths: BoxPaths, args: Dict[str, Any]) -> Tuple[str, List[Tuple[str, List[Any]]]]:
    """The tree to begin with and what of it counts, in the order of paths."""
    if args.get("earlier"):
        tree = incoming.place(paths, args["earlier"])
        try:
            return tree, sorted(snapshot.describe(tree).items())
        except OSError as error:
            raise _impossible(error.strerror or "it cannot be read") from None
    run = paths.run(check_run_id(args.get("run_id")))
    return run.code, _in_order(run)


def _is_meant(tree: str, listed: List[str], args: Dict[str, Any]) -> bool:
    """Marks with exact times where the base is a run's (the laptop was told them), in whole seconds where it is an attempt."""
    if args.get("earlier"):
        return bool(snapshot.fingerprint(tree) == args["marks"])
    return bool(together([_mark_of(tree, path) for path in listed]) == args["marks"])


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
