"""Verb ``seal``: pushed data gets its final name once it is complete, with its digest recorded."""

from __future__ import annotations

import os
import posixpath
import shutil
from typing import TYPE_CHECKING, Optional

from remote_payload.agent.box import incoming
from remote_payload.agent.box.files import read_json, remove_quietly, write_json
from remote_payload.agent.box.snapshot import Entries, describe, digest_of, stat_digest
from remote_payload.agent.run.run_folder import must_match
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.marks import read_expected
from remote_payload.agent.wire.paths import KEY, BoxPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Sealed


def seal(request: Request) -> Sealed:
    """Moves the attempt that ``incoming`` names to ``data/<key>`` where it is what the laptop sent (``marks``).

    Gives ``{key, path, files, bytes}``; the same request after a lost answer gives the same. Data that has this key
    and was changed on the box is replaced. Raises AgentError PushDiffers when the tree is not what the laptop sent, and
    TransferInterrupted when it is missing.
    """
    paths, asked = request.paths, request.fields("TransferFailed")
    key, digest, attempt = _key(asked.text("key")), asked.text("digest"), asked.text("incoming")
    source, target = incoming.place(paths, attempt), paths.data(key)
    name = incoming.split(attempt)[0]
    if has_data(paths, key, digest):
        incoming.forget(paths, name)  # another submit pushed the same
        return _answer(paths, key, describe(target))
    if not os.path.isdir(source):
        raise AgentError("TransferInterrupted", "the pushed data is not on the box any more", "Submit again.")
    must_match(source, read_expected(asked), "the data")
    entries = keep(paths, key, source, digest, asked.optional_whole("read_at"))
    incoming.forget(paths, name)
    return _answer(paths, key, entries)


def keep(paths: BoxPaths, key: str, source: str, digest: str, read_at: Optional[int] = None) -> Entries:
    """Moves a tree to ``data/<key>`` and records what it is; gives what is in it. ``read_at`` is when the laptop last saw it so."""
    entries = describe(source)
    _move(source, paths.data(key))
    write_json(_record(paths, key), {"digest": digest, "stat": digest_of(entries), "read_at": read_at})
    return entries


def _answer(paths: BoxPaths, key: str, entries: Entries) -> Sealed:
    sizes = [int(entry[0]) for entry in entries.values() if len(entry) == 2]
    return {"key": key, "path": paths.data(key), "files": len(entries), "bytes": sum(sizes)}


def read_at(paths: BoxPaths, key: str) -> Optional[int]:
    """When, by the laptop's clock, the laptop last checked that this data was what it had sent; None where that is not recorded."""
    value = (read_json(_record(paths, key)) or {}).get("read_at")
    return value if isinstance(value, int) else None


def has_data(paths: BoxPaths, key: str, digest: Optional[str] = None) -> bool:
    """Whether ``data/<key>`` was sealed (with this digest, where one is given) and is unchanged since."""
    record = read_json(_record(paths, key))
    if record is None or digest not in (None, record.get("digest")):
        return False
    try:
        return record.get("stat") == stat_digest(paths.data(key))
    except OSError:
        return False


def forget_data(paths: BoxPaths, key: str) -> None:
    """Removes a sealed version, its record first."""
    remove_quietly(_record(paths, key))
    _remove(paths.data(key))


def _move(source: str, target: str) -> None:
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


def _key(key: str) -> str:
    if not KEY.fullmatch(key):
        raise AgentError("TransferFailed", "unusable name for pushed data: %.100r" % key)
    return key


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove_quietly(path)
