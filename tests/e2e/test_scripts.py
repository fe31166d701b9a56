"""What scripts and coding agents ask of a run, over a real sshd: waiting for a moment of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun
from tests.support.proxy import Proxy

# Goes on at each file that the test makes: a checkpoint, then the end with exit code 3.
IN_STEPS = """
import pathlib, sys, time
def until(name):
    while not pathlib.Path("/proc/self/cwd", name).exists():
        time.sleep(0.02)
print("begun", flush=True)
until("go")
folder = pathlib.Path("models/save-5")
folder.mkdir(parents=True)
(folder / "state.bin").write_bytes(b"weights")
(folder / "DONE").write_text("")
until("end")
sys.exit(3)
"""
CHECKPOINTS = {"pattern": "models/save-*", "complete_when": "DONE"}


def let(gpurun: Gpurun, run_id: str, name: str) -> None:
    (gpurun.box_run(run_id) / "code" / name).touch()


def test_wait_ends_at_each_moment_of_a_run_through_links_that_are_cut(gpurun: Gpurun, box: Box, job: Any) -> None:
    file = job(IN_STEPS, checkpoints=CHECKPOINTS)
    with Proxy(box.port) as link:
        run_id = gpurun.json("submit", str(file), "--host", box.address(link.port))["runs"][0]["run_id"]
        assert gpurun.json("wait", "--for", "started")["status"]["phase"] == "running"

        up = gpurun.json("wait", "--for", "checkpoint", "--timeout", "1s", check=124)
        assert up["error"]["kind"] == "StillGoing" and "running" in up["error"]["message"]
        waiting = gpurun.start("wait", "probe", "--for", "checkpoint", "--json")
        seen = link.trace.connections
        wait_until(lambda: link.trace.connections > seen)
        let(gpurun, run_id, "go")
        out, err = waiting.communicate(timeout=120)
        assert waiting.returncode == 0, err
        assert json.loads(out)["status"]["phase"] == "running"
        assert gpurun("wait", "--for", "checkpoint").stdout == f"{run_id}: running\n"  # it was there before

        waiting = gpurun.start("wait", "--json")
        for cut in range(3):
            seen = link.trace.connections
            wait_until(lambda seen=seen: link.trace.connections > seen)  # it has connected, or connected again
            link.cut("reset" if cut % 2 else "close")
        let(gpurun, run_id, "end")
        out, err = waiting.communicate(timeout=240)
        assert waiting.returncode == 10, err
        ended = json.loads(out)
        assert ended["status"]["outcome"] == "failed" and ended["status"]["exit"]["number"] == 3
    assert (
        "why" not in gpurun("wait", check=10).stdout
    )  # the box is not asked about a run that is over: the link is gone


def test_wait_goes_on_with_the_run_that_resumes_it(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job("import time\ntime.sleep(600)"))
    gpurun("stop", run_id, "--grace", "0")
    (Path(gpurun.home).parent / "project-probe" / "main.py").write_text("print('the rest')")
    second = gpurun.json("resume", run_id)["run_id"]
    assert gpurun.json("wait", run_id)["run_id"] == second
