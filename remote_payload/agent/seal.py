"""Verb ``seal``: pushed data gets its final name once it is whole, and is known by a digest from then on."""

import os
import posixpath
import shutil
from typing import Any, Dict

from remote_payload.agent.files import read_json, remove_quietly, write_json
from remote_payload.agent.paths import KEY, BoxPaths
from remote_payload.agent.request import AgentError, Request
from remote_payload.agent.snapshot import describe, digest_of, stat_digest


def seal(request: Request) -> Dict[str, Any]:
    """Moves ``incoming/<incoming>`` to ``data/<key>`` after counting its ``files`` (links too) and their ``bytes``.

    Gives ``{key, path, files, bytes}``; asking again after a lost answer gives the same. Data that lies under this key
    and was changed on the box is replaced. Raises AgentError TransferInterrupted when not everything arrived.
    """
    paths, args = request.paths, request.args
    key, digest = _name(args.get("key")), str(args.get("digest") or "")
    source, target = paths.incoming(_name(args.get("incoming"))), paths.data(key)
    if has_data(paths, key, digest):
        _remove(source)  # another submit pushed the same
        return {"key": key, "path": target, "files": args.get("files"), "bytes": args.get("bytes")}
    if not os.path.lexists(source):
        raise AgentError("TransferInterrupted", "the pushed data is not on the box any more", "Submit again.")
    entries = describe(source)
    sizes = [int(entry[0]) for entry in entries.values() if len(entry) == 2]
    for what, expected, found in (("files", args.get("files"), len(entries)), ("bytes", args.get("bytes"), sum(sizes))):
        if expected is not None and expected != found:
            message = "of the data's %s %s, %s arrived on the box" % (expected, what, found)
            raise AgentError("TransferInterrupted", message, "Submit again: what arrived is not sent twice.")
    _settle(paths, source, target)
    write_json(_record(paths, key), {"digest": digest, "stat": digest_of(entries)})
    return {"key": key, "path": target, "files": len(entries), "bytes": sum(sizes)}


def has_data(paths: BoxPaths, key: str, digest: str) -> bool:
    """Whether ``data/<key>`` was sealed with this digest and lies there as it was sealed."""
    record = read_json(_record(paths, key))
    if record is None or record.get("digest") != digest:
        return False
    try:
        return record.get("stat") == stat_digest(paths.data(key))
    except OSError:
        return False


def forget_data(paths: BoxPaths, key: str) -> None:
    """Removes a sealed version, its record first."""
    remove_quietly(_record(paths, key))
    _remove(paths.data(key))


def _settle(paths: BoxPaths, source: str, target: str) -> None:
    os.makedirs(posixpath.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        changed = "%s.changed-%d" % (source, os.getpid())
        os.rename(target, changed)
        os.rename(source, target)
        _remove(changed)
    else:
        os.rename(source, target)


def _record(paths: BoxPaths, key: str) -> str:
    return posixpath.join(posixpath.dirname(paths.data(key)), ".%s.json" % key)  # no key begins with a dot


def _name(value: object) -> str:
    if not isinstance(value, str) or not KEY.fullmatch(value):
        raise AgentError("TransferFailed", "unusable name for pushed data: %.100r" % (value,))
    return value


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove_quietly(path)
