"""A sweep whose box is gone goes on at another one: what ran, with what is home of it, then what waited, each once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import wait_until
from tests.support.boxes.mortal_box import MortalBox
from tests.support.cli import Gpurun

pytestmark = pytest.mark.stand_in  # GPUs are a file

# Says that it was started, with what it began with, and waits.
PROGRAM = """
import hashlib, json, os, pathlib, time
place = pathlib.Path("models/step-000004")
before = (place / "optimizer.safetensors").read_text() if place.exists() else "nothing"
if not place.exists():
    place.mkdir()
    (place / "optimizer.safetensors").write_text(os.environ["LR"])
    sha256 = hashlib.sha256(os.environ["LR"].encode()).hexdigest()
    files = [{{"path": "optimizer.safetensors", "size": 1, "sha256": sha256}}]
    (place / "manifest.json").write_text(json.dumps({{"step": 4, "files": files, "metrics": {{}}}}))
with open({said!r}, "a") as said:
    said.write(f"{{os.environ['LR']}} {{before}} {{os.environ.get('GPURUN_RESUME', 'new')}}\\n")
while not os.path.exists({go!r}):
    time.sleep(0.05)
"""


class Sweep:
    """Three runs on a box of two GPUs."""

    def __init__(self, gpurun: Gpurun, job: Any, folder: Path, box: MortalBox) -> None:
        self.said, self.go = folder / "said", folder / "go"
        self.said.touch()
        program = PROGRAM.format(said=str(self.said), go=str(self.go))
        sweep = {"environment.variables.LR": ["1", "2", "3"]}
        file = job(program, resources={"gpus": 1}, queue=True, sweep=sweep)
        document = gpurun.json("submit", str(file), "--host", box.address)
        self.runs = [run["run_id"] for run in document["runs"]]
        wait_until(lambda: len(self.lines()) == 2)

    def lines(self) -> list[str]:
        return self.said.read_text().splitlines()


def moved_to(gpurun: Gpurun, sweep: Sweep, host: str) -> None:
    for run in sweep.runs:
        file = gpurun.home / "runs" / run / "run.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "host": host}))


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[MortalBox, MortalBox]]:
    made = MortalBox(tmp_path / "box-a", gpus=2), MortalBox(tmp_path / "box-b", gpus=3)
    yield made
    for box in made:
        box.end()


def test_what_ran_and_what_waited_goes_on_elsewhere_once_though_two_commands_do_it(
    gpurun: Gpurun, job: Any, tmp_path: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, other = boxes
    sweep = Sweep(gpurun, job, tmp_path, box)
    first, second, third = sweep.runs
    gpurun("fetch", first)
    gpurun("status", second)
    box.die()
    seen = gpurun.json("resume", "--all", "--host", other.address, "--dry-run")
    assert [(each["run_id"], each["was"], each["what"]) for each in seen["runs"]] == [
        (first, "running", "ready"), (second, "running", "ready"), (third, "waiting", "ready"),
    ]  # fmt: skip
    assert not other.paths.runs or not Path(other.paths.runs).exists()

    racing = [gpurun.start("resume", "--all", "--host", other.address, "--json") for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in racing]
    assert [process.returncode for process in racing] == [0, 0], ended
    wait_until(lambda: len(sweep.lines()) >= 5)
    assert sorted(sweep.lines()[2:]) == ["1 1 auto", "2 nothing new", "3 nothing new"]
    sweep.go.touch()
    again = gpurun.json("resume", "--all", "--host", other.address)
    assert again["runs"] == []
    assert len(sweep.lines()) == 5

    new = [run for run in gpurun.json("list")["runs"] if run["run_id"] not in sweep.runs]
    assert Counter(run["parent"] for run in new) == Counter(sweep.runs)
    assert len({run["submission"] for run in gpurun.json("list")["runs"]}) == 1
    for run in new:
        gpurun("logs", run["run_id"], "-f")
    assert json.loads((gpurun.home / "runs" / first / "run.json").read_text())["went_on_as"] in {
        run["run_id"] for run in new
    }


def test_a_box_that_answers_keeps_its_runs_and_older_sweeps_are_told(
    gpurun: Gpurun, job: Any, tmp_path: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, other = boxes
    sweep = Sweep(gpurun, job, tmp_path, box)
    done = gpurun("resume", "--all", "--host", other.address)
    assert "its runs go on there" in done.stderr and "no run on" in done.stdout
    name = gpurun.json("status")["submission"]
    (said,) = gpurun.json("resume", "--all", name, "--host", other.address)["boxes"]
    assert said["runs"] == []
    moved_to(gpurun, sweep, "root@127.0.0.1:9")  # as where the box has another address than the records know
    done = gpurun("resume", "--all", "--host", box.address)
    assert "is the box that was at root@127.0.0.1:9" in done.stderr and len(sweep.lines()) == 2
    moved_to(gpurun, sweep, box.address)
    box.die()
    job("print('edited')").parent.joinpath("main.py").unlink()  # the runs take the code that they had
    gpurun("resume", "--all", name, "--host", other.address)
    wait_until(lambda: len(sweep.lines()) == 5)
    sweep.go.touch()
