"""Verb ``compare``: the differences between a pushed tree and what the laptop sent. Asked only where the fingerprints differ."""

from __future__ import annotations

import json
import os
import stat
import zlib
from typing import TYPE_CHECKING, Any, List, Optional

from remote_payload.agent.box import incoming, snapshot
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Compared, Difference

MOST = 100  # differences that are named


def compare(request: Request) -> Compared:
    """``{differs: [{path, why}], count}`` of the attempt ``incoming`` against the list that follows as a compressed blob: JSON, for each
    path ``[size, seconds, mode, sha256 or null]`` or ``[target]``.
    """
    tree = incoming.place(request.paths, request.fields().optional_text("incoming"))
    try:
        meant = json.loads(zlib.decompress(b"".join(request.blobs())).decode("ascii"))
        there = dict(snapshot.walk(tree))
    except (zlib.error, ValueError):
        raise AgentError("TransferInterrupted", "the list of files arrived damaged") from None
    except OSError as error:
        raise AgentError("TransferInterrupted", "the pushed files cannot be read: %s" % error.strerror) from None
    found: List[Difference] = []
    for path, facts in meant.items():
        why = _why(os.path.join(tree, path), there[path], facts) if path in there else "missing"
        if why:
            found.append({"path": path, "why": why})
    for path in there:
        if path not in meant:
            found.append({"path": path, "why": "too much"})
    return {"differs": found[:MOST], "count": len(found)}


def _why(full: str, about: os.stat_result, meant: List[Any]) -> Optional[str]:
    if len(meant) == 1:
        same = stat.S_ISLNK(about.st_mode) and os.readlink(full) == meant[0]
        return None if same else "another link"
    size, seconds, mode, content = meant
    if not stat.S_ISREG(about.st_mode):
        return "not a file"
    if about.st_size != size:
        return "another size"
    if content is not None and snapshot.sha256_of(full).hex() != content:
        return "another content"
    if content is None and about.st_mtime_ns // 10**9 != seconds:
        return "another time"
    return "other permissions" if about.st_mode & 0o777 != mode else None
