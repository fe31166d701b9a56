"""Verb ``sample``: runs a module of the payload in a run's own environment, beside the run, until it ends or the request is cancelled."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, List

from remote_payload.agent.run import beside
from remote_payload.agent.run.order import LaunchFile, read_launch
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Sampled

MODULE = re.compile(r"remote_payload\.recipes\.[a-z_]+")
LINE_LIMIT = 1 << 20  # bytes of one line
LAST_ERRORS = 2000  # characters of stderr in an error


def sample(request: Request) -> Sampled:
    """Runs ``module`` with ``arguments``: a progress ``{line}`` for each line it prints, ``{code}`` at its end.

    With ``listen`` what the laptop uploads is its standard input, as it comes. Raises AgentError when the run has none of
    gpurun's own training code, or the process failed without a line.
    """
    run, asked = request.run(), request.fields("LaunchError")
    launched = read_launch(run)
    if launched is None:
        raise AgentError("RunLost", "run %s has no folder on the box, or never started" % run.run_id)
    command = _command(run, launched, asked)
    stderr: List[str] = []
    listens = asked.flag("listen")
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE if listens else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=run.code,
        env=dict(beside.environment(run, launched), HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1"), start_new_session=True,
    )  # fmt: skip
    threads = [
        threading.Thread(target=_keep_errors, args=(process, stderr), daemon=True),
        threading.Thread(target=_end_with, args=(process, request), daemon=True),
    ] + ([threading.Thread(target=_feed, args=(process, request), daemon=True)] if listens else [])
    for thread in threads:
        thread.start()
    assert process.stdout is not None
    lines = 0
    for line in iter(lambda: process.stdout.readline(LINE_LIMIT), b""):  # type: ignore[union-attr]
        request.progress({"line": line.decode("utf-8", "replace").rstrip("\n")})
        lines += 1
    code = process.wait()
    threads[0].join()
    if code and not lines:
        raise AgentError("ArtifactError", "the model could not be tried:\n%s" % "".join(stderr)[-LAST_ERRORS:].strip())
    return {"code": code}


def _command(run: RunPaths, launched: LaunchFile, asked: Fields) -> List[str]:
    module, argv = asked.text("module"), launched.argv
    if not MODULE.fullmatch(module):
        raise AgentError("LaunchError", "%r is no module of the payload" % module)
    if "-m" not in argv or not argv[-1].startswith("remote_payload."):
        raise AgentError(
            "LaunchError",
            "run %s is of a program of your own, so gpurun does not know how to ask its model" % run.run_id,
            "Bring it home with gpurun fetch: what transformers or peft saved is then asked on this machine.",
        )
    return [argv[0], "-m", module, *asked.texts("arguments")]


def _keep_errors(process: "subprocess.Popen[bytes]", stderr: List[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        stderr.append(line.decode("utf-8", "replace"))
        del stderr[:-50]


def _feed(process: "subprocess.Popen[bytes]", request: Request) -> None:
    """What the laptop uploads goes to the process, until the upload ends."""
    assert process.stdin is not None
    try:
        with process.stdin as incoming:
            for blob in request.blobs():
                incoming.write(blob)
                incoming.flush()
    except (OSError, AgentError):  # the process has ended, or the laptop is gone
        pass


def _end_with(process: "subprocess.Popen[bytes]", request: Request) -> None:
    """Ends the process group when the request is cancelled."""
    while process.poll() is None:
        if request.cancelled.wait(0.2):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            return
