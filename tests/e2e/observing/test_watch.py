"""``gpurun watch`` over a real sshd and a slow link, on a real terminal: steps go on, the link breaks, leaving leaves the run alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun
from tests.support.observing.tmux import Tmux, needs_tmux, terminal
from tests.support.proxy import Proxy

# Steps until the file "end" is there, each with 20 KB of log.
TRAIN = """
import json, os, pathlib, time
step, end = 0, pathlib.Path("end")
pathlib.Path("models").mkdir(exist_ok=True)
with open(os.environ["GPURUN_EVENTS"], "a", buffering=1) as events:
    def tell(**event):
        events.write(json.dumps({"t": time.time(), **event}) + "\\n")
    while not end.exists():
        step += 1
        tell(type="step", step=step, total=100000, loss=3 / step, ms=100.0)
        if step % 20 == 0:
            tell(type="eval", name="validation", step=step, metrics={"accuracy": 0.5})
        print("x" * 20000, flush=True)
        print("this is step", step, flush=True)
        time.sleep(0.1)
raise SystemExit(int(end.read_text() or 0))
"""
OLD = re.compile(r"as of \d\d:\d\d:\d\d, trying again: ")
STEP = re.compile(r"^([\d,]+) of 100,000 steps")


def step_shown(tmux: Tmux) -> int:
    """The step on the screen, 0 without one."""
    found = [int(match[1].replace(",", "")) for line in tmux.lines if (match := STEP.match(line))]
    return found[0] if found else 0


def goes_on(tmux: Tmux) -> bool:
    """Awaits a later step than the one that is shown."""
    before = step_shown(tmux)
    return bool(wait_until(lambda: step_shown(tmux) > before))


@needs_tmux
def test_a_run_is_watched_over_a_slow_link_that_breaks(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    with Proxy(box.port) as link:
        (run,) = gpurun.json("submit", str(job(TRAIN)), "--host", box.address(link.port))["runs"]
        code = box.root / "runs" / run["run_id"] / "code"
        link.set(delay=0.075, rate=125_000)  # a round trip of 150 ms, 1 Mbit/s
        watch = f"{sys.executable} -m runner.cli watch"
        with terminal(tmp_path, 80, 24, **gpurun.environment()) as tmux:
            tmux.type(f"clear; {watch}; echo ended with $?")
            assert goes_on(tmux)
            assert any(line.startswith("validation accuracy 0.5") for line in wait_until(lambda: with_a_plot(tmux)))
            assert any(line.startswith("this is step ") for line in tmux.lines)

            link.count_anew()
            first = step_shown(tmux)
            wait_until(lambda: step_shown(tmux) >= first + 60)  # six seconds, 1.2 MB of log
            assert link.trace.bytes("to client") < 200_000

            link.refuse()
            link.cut()
            wait_until(lambda: any(OLD.match(line) for line in tmux.lines))
            link.refuse(False)
            assert goes_on(tmux) and not any(OLD.match(line) for line in tmux.lines)

            tmux.press("q")
            wait_until(lambda: "ended with 0" in tmux.lines)
            assert "left; the runs go on: gpurun watch" in tmux.lines
            tmux.type(f"clear; {watch}; echo ended with $?")
            assert goes_on(tmux)
            tmux.press("C-c")
            wait_until(lambda: "ended with 130" in tmux.lines)
        assert gpurun.json("status")["status"]["phase"] == "running"
        assert (gpurun.home / "runs" / run["run_id"] / "log").stat().st_size == 0  # logs brings it, watch does not

        (code / "end").write_text("3")
        piped = gpurun("watch", check=10)
        assert "failed (exit 3)" in piped.stdout.splitlines()[-1] and "exit 3" in piped.stderr
        once = gpurun("watch", "--once").stdout.splitlines()
        assert len(once) <= 24 and max(map(len, once)) <= 80 and "failed (exit 3)" in once[0] + once[1]
        assert gpurun.json("watch", check=10)["runs"][0]["status"]["outcome"] == "failed"


def with_a_plot(tmux: Tmux) -> list[str]:
    """The lines of the screen, each of both columns for itself, once an evaluation is drawn."""
    lines = [part for line in tmux.lines for part in re.split(r"\s{3,}", line)]
    return lines if any(line.startswith("validation") for line in lines) else []


def test_the_name_of_a_sweep_shows_its_table(gpurun: Gpurun, job: Any) -> None:
    file = job("print('done')", name="seeds", sweep={"environment.variables.SEED": ["1", "2"]})
    first, second = (run["run_id"] for run in gpurun.json("submit", str(file), "--host", "local")["runs"])
    both = gpurun("watch", first, second).stdout
    assert f"{first}  succeeded" in both and f"{second}  succeeded" in both
    sweep = gpurun.json("status", first)["submission"]
    table = gpurun("watch", sweep, "--once").stdout
    assert first in table and second in table and "2 runs: 2 succeeded" in table
