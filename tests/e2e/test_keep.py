"""``gpurun keep`` over real sshds: what it brings home, that it goes on after whatever interrupts it, and what it tells."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import wait_until
from tests.support.checkpointing import PROGRAM, command, home, unverified
from tests.support.cli import Gpurun
from tests.support.proxy import Proxy
from tests.support.rented import Rented, kill

TELLS = """
import json, os, sys
told = [os.environ["GPURUN_ENDED_" + name] for name in ("RUN", "OUTCOME", "PLACE")]
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(told) + "\\n")
"""


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[Rented, Rented]]:
    rented = Rented(tmp_path / "box-a"), Rented(tmp_path / "box-b")
    yield rented
    for box in rented:
        for run in box.runs.glob("*"):
            (run / "end").touch()
        box.local.stop()


def submit(gpurun: Gpurun, job: Any, box: Rented, how: str = "recipe", name: str = "probe") -> str:
    file = job(PROGRAM, name=name, command=command(how), outputs=["checkpoints", "logs"])
    run_id: str = gpurun.json("submit", str(file), "--host", box.address)["runs"][0]["run_id"]
    return run_id


def outputs(gpurun: Gpurun, run_id: str) -> Path:
    return gpurun.home / "runs" / run_id / "outputs"


def steps(gpurun: Gpurun, run_id: str) -> list[int]:
    return [saved.step for saved in home(outputs(gpurun, run_id))]


def save(gpurun: Gpurun, box: Rented, run_id: str, step: int) -> None:
    """Lets the run save, and awaits that it has come home."""
    (box.runs / run_id / f"go-{step}").touch()
    wait_until(lambda: steps(gpurun, run_id)[-1:] == [step], limit=90)


def end(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=90)
    assert process.returncode == code and "Traceback" not in err, (out, err)
    return out, err


def test_runs_on_two_boxes_come_home_as_they_go_and_their_ends_are_told(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented], tmp_path: Path
) -> None:
    one, other = boxes
    first, second = submit(gpurun, job, one), submit(gpurun, job, other, name="second")
    told, teller = tmp_path / "told", tmp_path / "tell me.py"
    teller.write_text(TELLS)
    on_end = shlex.join([sys.executable, str(teller), str(told)])
    keeping = gpurun.start("keep", first, second, "--checkpoints", "latest:1,best", "--on-end", on_end)
    for step in (1, 2, 3):
        save(gpurun, one, first, step)
    save(gpurun, other, second, 1)
    wait_until(lambda: steps(gpurun, first) == [3])
    (other.runs / second / "end").write_text("3")
    wait_until(lambda: told.exists())
    (one.runs / first / "end").touch()
    out, err = end(keeping, code=10)
    assert {tuple(json.loads(line)) for line in told.read_text().splitlines()} == {
        (first, "succeeded", str(outputs(gpurun, first))),
        (second, "failed", str(outputs(gpurun, second))),
    }
    assert f"{first}  {outputs(gpurun, first)}" in out and "step-000003 is home" in err and "would be lost now" in err
    assert unverified(outputs(gpurun, first)) == []
    assert b"ended" in (gpurun.home / "runs" / first / "log").read_bytes()
    document = gpurun.json("done", first)
    assert document["safe_to_destroy"], document["reasons"]
    gpurun("fetch", first)
    assert steps(gpurun, first) == [1, 2, 3]


def test_it_goes_on_at_another_address_and_after_it_was_killed(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented]
) -> None:
    box, _ = boxes
    run_id = submit(gpurun, job, box)
    old = box.address
    keeping = gpurun.start("keep")
    save(gpurun, box, run_id, 1)
    new = box.move()
    gpurun("hosts", "move", old, new)
    save(gpurun, box, run_id, 2)
    keeping.kill()
    keeping.communicate(timeout=30)
    (box.runs / run_id / "go-3").touch()
    again = gpurun.start("keep", "--json")
    wait_until(lambda: steps(gpurun, run_id) == [1, 2, 3])
    (box.runs / run_id / "end").touch()
    out, _ = end(again)
    (kept,) = json.loads(out)["runs"]
    assert kept["checkpoint"] == "step-000003" and kept["error"] is None and kept["status"]["outcome"] == "succeeded"
    assert unverified(outputs(gpurun, run_id)) == []


def test_a_laptop_that_slept_goes_on_and_a_run_that_was_moved_to_another_box_is_kept_there(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented]
) -> None:
    box, other = boxes
    with Proxy(box.local.ensure().port) as link:
        box.address = box.address.replace(f"-p {link.server_port} ", f"-p {link.port} ")
        run_id = submit(gpurun, job, box)
        keeping = gpurun.start("keep", run_id)
        save(gpurun, box, run_id, 1)
        keeping.send_signal(signal.SIGSTOP)
        link.cut("reset")
        (box.runs / run_id / "go-2").touch()
        wait_until(lambda: (box.runs / run_id / "outputs/checkpoints/step-000002").exists())
        keeping.send_signal(signal.SIGCONT)
        wait_until(lambda: steps(gpurun, run_id) == [1, 2])
    kill(box, run_id)
    after = gpurun.json("resume", run_id, "--host", other.address)["run_id"]
    save(gpurun, other, after, 3)
    (other.runs / after / "end").touch()
    out, err = end(keeping)
    assert f"{run_id} goes on as {after}" in err and str(outputs(gpurun, after)) in out and "connected again" in err


def test_ctrl_c_says_what_is_home_and_how_to_go_on(gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented]) -> None:
    box, _ = boxes
    run_id = submit(gpurun, job, box, how="trainer")
    for words in (["--checkpoints", "best"], ["--on-end", "no-such-program x"], ["--on-end", "'"]):
        assert "Nothing was done" in gpurun("keep", *words, check=2).stderr, words
    keeping = gpurun.enter("keep", "--checkpoints", "latest:2")
    save(gpurun, box, run_id, 1)
    wait_until(lambda: (gpurun.home / "runs" / run_id / "keep.json").exists())
    keeping.send_signal(signal.SIGINT)
    _, err = end(keeping, code=130)
    assert f"{run_id} goes on; checkpoints/checkpoint-1 is home in {outputs(gpurun, run_id)}" in err
    assert f"Go on: gpurun keep {run_id} --checkpoints latest:2" in err and "minutes of work would be lost now" in err
    assert gpurun.json("status", run_id)["status"]["phase"] == "running"
