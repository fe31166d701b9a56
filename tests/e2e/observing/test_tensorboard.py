"""``gpurun tensorboard`` over real SSH with the real TensorBoard: a step that was written on the box is served here a moment later."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.cli import Gpurun

pytest.importorskip("tensorboard")
# A step each time a file asks for one, until a file ends it.
PROGRAM = """
import os, pathlib, time
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

run = pathlib.Path(os.environ["GPURUN_RUN_DIR"])
writer, step = EventFileWriter("curves/train"), 0
while not (run / "end").exists():
    if (run / f"go-{step}").exists():
        value = Summary.Value(tag="loss", simple_value=1.0 / (step + 1))
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
        writer.flush()
        step += 1
    time.sleep(0.05)
"""


def steps(address: str, run: str) -> list[int]:
    """The steps that TensorBoard serves of a run; none where it does not know the run yet."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request("GET", "/data/plugin/scalars/scalars?" + urlencode({"run": run, "tag": "loss"}))
        answer = connection.getresponse()
        return [step for _, step, _ in json.loads(answer.read())] if answer.status == 200 else []
    finally:
        connection.close()


def test_a_new_step_is_shown_while_the_run_trains_and_nothing_is_left_behind(
    gpurun: Gpurun, job: Any, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    gpurun.env["TMPDIR"] = str(scratch)
    environment = {"interpreter": sys.executable}
    run_id = gpurun.submit(job(PROGRAM, outputs=["curves"], environment=environment))
    box_run = gpurun.box_run(run_id)
    (box_run / "go-0").touch()
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else has it
            taken.bind(("127.0.0.1", 6006))
            taken.listen()
        shown = gpurun.enter("tensorboard")
        assert shown.stdout is not None
        address = shown.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:") and not address.endswith(":6006/"), shown.poll()
    name = f"{run_id}/curves/train"
    wait_until(lambda: steps(address, name) == [0], limit=120)
    (box_run / "go-1").touch()
    (box_run / "go-2").touch()
    wait_until(lambda: steps(address, name) == [0, 1, 2], limit=120)
    (written,) = (box_run / "outputs").rglob("*tfevents*")
    size = written.stat().st_size
    (box_run / "go-3").touch()
    wait_until(lambda: written.stat().st_size > size)
    (box_run / "end").touch()
    wait_until(lambda: steps(address, name) == [0, 1, 2, 3], limit=120)
    children = processes.descendants(processes.scan(), shown.pid)
    assert children
    shown.send_signal(signal.SIGINT)
    _, err = shown.communicate(timeout=60)
    assert shown.returncode == 0 and "Traceback" not in err, err
    wait_until(lambda: not set(children) & set(processes.scan()))
    assert not list(scratch.glob("*tensorboard*"))
    # What a fetch brings does not depend on it, and the curves stay when the box is gone.
    gpurun("fetch", run_id)
    assert len(list((gpurun.home / "runs" / run_id / "outputs").rglob("*tfevents*"))) == 1
