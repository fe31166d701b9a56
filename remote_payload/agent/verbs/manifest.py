"""Verb ``manifest``: the manifest of a run, at its end or while it trains."""

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

REPORT_EVERY = 0.3  # seconds between two reports of progress


def manifest(request: Request) -> Manifest:
    """The manifest of ``run_id`` (below ``root``, by default the agent's); progress ``{done, total}`` in bytes while it hashes.

    With ``everything`` the outputs that a recipe's job does not name are listed too, such as checkpoints: for a run that moves.

    Raises AgentError RunLost for a run without a folder.
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
        request.cancelled.wait(0.1)  # its supervisor is ending its last processes, then it writes the manifest
        _stop_if_cancelled(request)
    everything = asked.flag("everything")
    written = None if everything else read(run)
    if written is None:
        return build(run, complete=over, progress=_reporter(request), everything=everything)
    return _with_later_files(run, written, _reporter(request))


def _with_later_files(run: RunPaths, written: Manifest, progress: Progress) -> Manifest:
    """The manifest of the run's end, with files that were renamed or copied into ``outputs/`` since.

    Every listed file stays in the list as it was then: if it is removed or changed, the laptop must notice that a result is missing.
    """
    found, left_out = find(run)
    listed = {entry["path"] for entry in written["files"]}
    if left_out == written.get("left_out") and listed.issuperset(found):
        return written
    now = build(run, complete=True, progress=progress)
    later = [entry for entry in now["files"] if entry["path"] not in listed]
    return {**now, "files": written["files"] + later}


def _reporter(request: Request) -> Progress:
    reported_at = [0.0]

    def report(done: int, total: int) -> None:
        _stop_if_cancelled(request)
        if time.monotonic() - reported_at[0] >= REPORT_EVERY or done == total:
            reported_at[0] = time.monotonic()
            request.progress({"done": done, "total": total})

    return report


def _stop_if_cancelled(request: Request) -> None:
    if request.cancelled.is_set():
        raise AgentError("TransferInterrupted", "the request for the manifest was cancelled")
