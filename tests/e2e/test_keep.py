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

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.boxes.rented import Rented, kill
from tests.support.checkpointing import PROGRAM, command, home, unverified
from tests.support.cli import Gpurun

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
    await_home(gpurun, run_id, step)


def await_home(gpurun: Gpurun, run_id: str, step: int) -> None:
    """Awaits the checkpoint's files, and that gpurun has noted it: if it is killed between the two, another gpurun has to find it again."""
    note = gpurun.home / "runs" / run_id / "keep.json"
    wait_until(
        lambda: (
            steps(gpurun, run_id)[-1:] == [step] and f"step-{step:06d}" in (note.read_text() if note.exists() else "")
        ),
        limit=90,
    )


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
    words = ["keep", first, second, "--checkpoints", "latest:1,best", "--on-end", on_end]
    begun = gpurun.enter(*words)
    save(gpurun, one, first, 1)
    begun.send_signal(signal.SIGINT)
    _, err = end(begun, code=130)
    assert f"{first} goes on; step-000001 is home in {outputs(gpurun, first)}; " in err
    assert "minutes of work would be lost now" in err and f"{second} goes on; no checkpoint of it is home" in err
    assert f"Go on: gpurun keep {first} {second} --checkpoints latest:1,best --on-end" in err
    keeping = gpurun.start(*words)
    (other.runs / second / "go-1").touch()
    save(gpurun, one, first, 2)
    wait_until(lambda: steps(gpurun, first) == [2] and steps(gpurun, second) == [1])
    (other.runs / second / "end").write_text("3")
    (one.runs / first / "end").touch()
    out, err = end(keeping, code=10)
    assert {tuple(json.loads(line)) for line in told.read_text().splitlines()} == {
        (first, "succeeded", str(outputs(gpurun, first))),
        (second, "failed", str(outputs(gpurun, second))),
    }
    assert f"{first}  {outputs(gpurun, first)}" in out and "step-000002 is home" in err and "would be lost now" in err
    assert unverified(outputs(gpurun, first)) == []
    assert b"ended" in (gpurun.home / "runs" / first / "log").read_bytes()
    document = gpurun.json("done", first)
    assert document["safe_to_destroy"], document["reasons"]
    gpurun("fetch", first)
    assert steps(gpurun, first) == [1, 2]


def test_it_goes_on_after_sleep_at_another_address_after_it_was_killed_and_on_another_box(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented]
) -> None:
    box, other = boxes
    run_id = submit(gpurun, job, box)
    old = box.address
    asleep = gpurun.start("keep")
    save(gpurun, box, run_id, 1)
    cut_all(box)
    save(gpurun, box, run_id, 2)
    asleep.send_signal(signal.SIGSTOP)
    cut_all(box)
    (box.runs / run_id / "go-3").touch()
    gpurun("hosts", "move", old, box.move())
    asleep.send_signal(signal.SIGCONT)
    await_home(gpurun, run_id, 3)
    assert steps(gpurun, run_id) == [1, 2, 3]
    asleep.kill()
    assert "connected again" in asleep.communicate(timeout=30)[1]
    again = gpurun.start("keep", "--json")
    kill(box, run_id)
    after = gpurun.json("resume", run_id, "--host", other.address)["run_id"]
    save(gpurun, other, after, 4)
    (other.runs / after / "end").touch()
    out, _ = end(again)
    gone, kept = json.loads(out)["runs"]
    assert gone["run_id"] == run_id and gone["goes_on_as"] == after and gone["error"] is None
    assert kept["run_id"] == after and kept["checkpoint"] == "step-000004" and kept["error"] is None
    assert kept["status"]["outcome"] == "succeeded" and unverified(outputs(gpurun, after)) == []


def cut_all(box: Rented) -> None:
    """Ends every connection to the box, and what runs there goes on."""
    everything, sshd = processes.scan(), int((box.local.folder / "sshd.pid").read_text())
    for pid in processes.descendants(everything, sshd):
        processes.send(everything[pid], signal.SIGKILL)
