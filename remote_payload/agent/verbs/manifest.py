"""What a run has to show, asked for at its end or while it still trains."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from remote_payload.agent.run.alive import is_supervised
from remote_payload.agent.run.manifest import Progress, build, find, read
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Manifest

TELL_EVERY = 0.3  # seconds between two reports of progress


def manifest(request: Request) -> Manifest:
    """Verb: the manifest of ``run_id`` (below ``root``, by itself the agent's); progress ``{done, total}`` in bytes while it hashes.

    Raises AgentError RunLost for a run of which nothing is left.
    """
    asked = request.fields()
    root = asked.optional_text("root")
    run = (request.paths if root is None else BoxPaths(root)).run(asked.run_id())
    if not os.path.isdir(run.folder):
        raise AgentError(
            "RunLost",
            "run %s is lost: it has no folder on the box" % run.run_id,
            "What was fetched before is on your machine; gpurun list --host HOST shows what is on a box.",
        )
    over = status_of(run)["phase"] == "finished"
    while over and not os.path.exists(run.manifest) and is_supervised(run):
        request.cancelled.wait(0.1)  # its supervisor ends what is left of it and writes the manifest now
        _give_up(request)
    written = read(run)
    if written is None:
        return build(run, complete=over, progress=_teller(request))
    return _with_what_came_later(run, written, _teller(request))


def _with_what_came_later(run: RunPaths, written: Manifest, progress: Progress) -> Manifest:
    """What the run had at its end, and what was renamed or copied into ``outputs/`` since.

    What was listed stays listed as it was then: that it is gone or changed must not look as if there had been no such result.
    """
    found, left_out = find(run)
    listed = {entry["path"] for entry in written["files"]}
    if left_out == written.get("left_out") and listed.issuperset(found):
        return written
    now = build(run, complete=True, progress=progress)
    later = [entry for entry in now["files"] if entry["path"] not in listed]
    return {**now, "files": written["files"] + later}


def _teller(request: Request) -> Progress:
    told = [0.0]

    def tell(done: int, total: int) -> None:
        _give_up(request)
        if time.monotonic() - told[0] >= TELL_EVERY or done == total:
            told[0] = time.monotonic()
            request.progress({"done": done, "total": total})

    return tell


def _give_up(request: Request) -> None:
    if request.cancelled.is_set():
        raise AgentError("TransferInterrupted", "nobody waits for the manifest any more")
