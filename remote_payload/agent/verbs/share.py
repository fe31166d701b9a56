"""Verb ``share``: what a run of this box wrote becomes data that other runs of it read, without a way over the laptop.

It is a copy below ``data/``, sealed as pushed data is: the run may be removed, and go on writing, while others read it. The copy takes no
space and no time where the filesystem can clone files; the weights of a recipe, which nobody writes to in place, are hard links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import shutil
import time
from typing import TYPE_CHECKING

from remote_payload.agent.box import incoming
from remote_payload.agent.box.files import read_json
from remote_payload.agent.box.snapshot import Entries, describe, digest_of
from remote_payload.agent.run import run_folder, state
from remote_payload.agent.verbs import seal
from remote_payload.agent.verbs.launch import await_outputs
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Shared

TRIES = 3  # for outputs that change while they are copied
NOTHING = "Nothing was started."


def share(request: Request) -> Shared:
    """``{key, member, files, bytes}`` of the data that ``path`` in the outputs of the run ``run_id`` has become; ``member`` is the name of
    its only file where it is one file. ``key`` is None where this box has no such run.

    Raises AgentError LaunchError where the run has no such output, or has not completed it yet; BoxNotReady for a full disk.
    """
    run, paths = request.run(), request.paths
    written = request.fields("LaunchError").text("path")
    if not os.path.isdir(run.folder):
        return {"key": None, "member": None, "files": 0, "bytes": 0}
    over = state.status_of(run)["phase"] == "finished"
    if over:
        await_outputs(run)
    source = _source(run, written)
    if not over and not _is_complete(run, source):
        raise AgentError(
            "LaunchError",
            "%s still goes on, and %s of it is not complete" % (run.run_id, written),
            "Wait for it (gpurun logs -f %s), or name a folder that is complete, such as models/best or a checkpoint."
            % run.run_id,
            NOTHING,
        )
    for _ in range(TRIES):
        entries = _entries(run, written, source)
        shared = _copy(paths, run, written, source, entries)
        if shared is not None:
            return shared
    raise AgentError(
        "LaunchError",
        "%s of %s changes while it is copied" % (written, run.run_id),
        "Try again when it does not change any more.",
        NOTHING,
    )


def _is_complete(run: RunPaths, source: str) -> bool:
    whole = os.path.join(source, "") if os.path.isdir(source) else source
    return run_folder.is_complete(os.path.realpath(run.outputs), whole)


def _source(run: RunPaths, written: str) -> str:
    """The file or folder below the outputs, links followed. Raises AgentError where there is none, or a link leads out of them."""
    parts = written.split("/")
    top = os.path.realpath(run.outputs)
    source = os.path.realpath(os.path.join(top, *parts))
    inside = source == top or source.startswith(top + "/")
    if "\0" in written or ".." in parts or not inside or not os.path.exists(source):
        there = ", ".join(sorted(os.listdir(top))[:8]) if os.path.isdir(top) else ""
        hint = "Its outputs are: %s" % there if there else "It has no outputs."
        raise AgentError("LaunchError", "%s has no output %.200s" % (run.run_id, written), hint, NOTHING)
    return source


def _entries(run: RunPaths, written: str, source: str) -> Entries:
    """What is in there. Raises AgentError for a link that would lead elsewhere from the copy."""
    entries = describe(source)
    for path, about in entries.items():
        if len(about) == 1:
            target = str(about[0])
            real = os.path.realpath(os.path.join(source, path))
            if target.startswith("/") or not real.startswith(source + "/"):
                message = "%s of %s holds a link that leads out of it: %.200s" % (written, run.run_id, path)
                raise AgentError("LaunchError", message, "Name the file or folder that it leads to.", NOTHING)
    return entries


def _copy(paths: BoxPaths, run: RunPaths, written: str, source: str, entries: Entries) -> Shared | None:
    """Copies and seals it, unless that was done before. None where it changed meanwhile."""
    name = posixpath.basename(written.rstrip("/"))
    member = None if os.path.isdir(source) else name
    described = {member: entries[""]} if member else entries
    digest = digest_of(described)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "data"
    key = "%s-%s" % (slug, digest[:24])
    sizes = [int(about[0]) for about in entries.values() if len(about) == 2]
    answer: Shared = {"key": key, "member": member, "files": len(entries), "bytes": sum(sizes)}
    if seal.has_data(paths, key, digest):
        return answer
    attempt = incoming.place(paths, "%s/%d-%s" % (key, time.time(), os.urandom(4).hex()))
    os.makedirs(posixpath.dirname(attempt), 0o700, exist_ok=True)
    try:
        _fill(run, source, attempt, member)
        if describe(attempt) != described or describe(source) != entries:
            return None
        seal.keep(paths, key, attempt, digest)
    except FileNotFoundError:  # a folder was replaced meanwhile
        return None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AgentError("BoxNotReady", *run_folder.NO_ROOM) from None
        raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
        with contextlib.suppress(OSError):  # another attempt is there
            os.rmdir(posixpath.dirname(attempt))
    return answer


def _fill(run: RunPaths, source: str, attempt: str, member: str | None) -> None:
    recipe = bool((read_json(run.job) or {}).get("recipe"))
    take = run_folder.taker(os.path.realpath(run.outputs), share=recipe)
    if member is not None:
        os.mkdir(attempt, 0o700)
        take(source, os.path.join(attempt, member))
        return
    try:
        shutil.copytree(source, attempt, symlinks=True, copy_function=take)
    except shutil.Error:  # of single files; what changed shows in the comparison
        pass
