"""A sweep over two boxes as one thing: looked at, counted, brought home, thinned, stopped; each box asked over one connection."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import wait_until
from tests.support.boxes.rented import Rented
from tests.support.cli import REPOSITORY, Gpurun

# Two evaluations of two sets, a chosen model and a checkpoint in the form of a recipe's. It waits for a file where it is told to.
PROGRAM = """
import json, os, pathlib, time
lr, seed = float(os.environ["LR"]), int(os.environ["SEED"])
def folder(name, size, **more):
    path = pathlib.Path(name)
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"w" * size)
    (path / "manifest.json").write_text(json.dumps({"files": [{"path": "weights", "size": size}], **more}))
    return path
with open(os.environ["GPURUN_EVENTS"], "a") as events:
    for step in (1, 2):
        events.write(json.dumps({"type": "step", "step": step, "total": 2, "loss": lr}) + "\\n")
        for name in ("validation", "hard"):
            metrics = {"loss": lr + seed * step, "share": seed / 10}
            events.write(json.dumps({"type": "eval", "name": name, "step": step, "metrics": metrics}) + "\\n")
        events.flush()
while os.environ["WAIT"] and not os.path.exists(os.path.expanduser("~/go")):
    time.sleep(0.02)
folder("checkpoints/step-000002", 3000, step=2)
best = folder("models/best", 1000)
(best / "metrics.json").write_text(json.dumps({"step": 2, "loss": lr + 2 * seed}))
pathlib.Path("reports").mkdir(exist_ok=True)
pathlib.Path("reports/a.txt").write_text("r")
"""
LR, SEEDS = ("0.5", "1.5"), ("1", "2", "4")


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[list[Rented]]:
    made = [Rented(tmp_path / name) for name in ("one", "two")]
    yield made
    for box in made:
        (box.local.home / "go").touch()
        box.local.stop()


def submit(gpurun: Gpurun, job: Any, boxes: list[Rented], wait: str = "") -> str:
    """The id of the submission."""
    file = job(
        PROGRAM, name="grid", outputs=["models", "checkpoints", "reports"], price_per_hour=1.0,
        environment={"variables": {"LR": "0", "SEED": "0", "WAIT": wait}},
        sweep={"environment.variables.LR": list(LR), "environment.variables.SEED": list(SEEDS)},
    )  # fmt: skip
    hosts = [word for box in boxes for word in ("--host", box.address)]
    runs = gpurun.json("submit", str(file), *hosts)["runs"]
    assert len(runs) == 6 and {run["host"] for run in runs} == {box.address for box in boxes}
    (submission,) = {run["submission"] for run in runs}
    return str(submission)


def test_a_sweep_over_two_boxes_is_one_thing(gpurun: Gpurun, boxes: list[Rented], job: Any) -> None:
    sweep = submit(gpurun, job, boxes)
    seen: dict[str, Any] = {}

    def over() -> bool:
        seen.update(gpurun.json("sweep", "grid"))
        return all(run["complete"] for run in seen["runs"])

    wait_until(over, 60)
    assert seen["sweep"] == sweep and len(seen["means"]) == 2 * 5
    assert {json.dumps(run["settings"]) for run in seen["runs"]} == {
        json.dumps({"LR": lr, "SEED": seed}) for lr in LR for seed in SEEDS
    }
    assert {(run["final_bytes"], run["checkpoints"], run["checkpoint_bytes"]) for run in seen["runs"]} == {
        (1000, 2, 4000)
    }
    _the_means_are_right(gpurun, sweep)
    _compared_as_well(gpurun, sweep)
    said = gpurun("stop", sweep)
    assert "no run is under way" in said.stdout and "connect to" not in said.stderr

    brought = gpurun("fetch", "grid", "--best")
    assert brought.stderr.count("connect to") == len(boxes)
    homes = [Path(run["fetched_into"]) for run in gpurun.json("sweep", sweep)["runs"]]
    for home in homes:
        files = {
            str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and not path.name.startswith(".")
        }
        assert files == {
            "reports/a.txt",
            *(f"models/best/{name}" for name in ("manifest.json", "metrics.json", "weights")),
        }
    assert [box["safe_to_destroy"] for box in gpurun.json("done", sweep, check=6)["boxes"]] == [False] * len(boxes)
    gpurun("fetch", sweep)
    assert [box["safe_to_destroy"] for box in gpurun.json("done", sweep)["boxes"]] == [True] * len(boxes)
    _one_of_each_experiment_stays_on_a_box(gpurun, boxes, sweep)
    for box in boxes:
        box.local.stop()
    assert len(gpurun("sweep", "--csv").stdout.splitlines()) == 11, "the results outlive the boxes"


def _the_means_are_right(gpurun: Gpurun, sweep: str) -> None:
    shown = gpurun("sweep", sweep)
    assert "connect to" not in shown.stderr, "all that can be heard was heard"
    assert "0 ± " not in shown.stdout and "6 runs: 6 succeeded" in shown.stdout
    rows = list(csv.DictReader(io.StringIO(gpurun("sweep", sweep, "--csv").stdout)))
    assert {row["experiment"] for row in rows} == {"grid-lr-0-5", "grid-lr-1-5"}
    seeds = [float(seed) for seed in SEEDS]
    for row in rows:
        lr = float(row["experiment"].removeprefix("grid-lr-").replace("-", "."))
        values = [lr + 2 * seed if row["metric"] == "loss" else seed / 10 for seed in seeds]
        assert float(row["mean"]) == pytest.approx(statistics.fmean(values)), row
        assert float(row["sd"]) == pytest.approx(statistics.stdev(values)), row
        assert (row["count"], row["runs"]) == ("3", "3")


def _compared_as_well(gpurun: Gpurun, sweep: str) -> None:
    """The same figures side by side, without asking a box again; two runs that differ in their seed."""
    shown = gpurun("compare", sweep)
    assert "connect to" not in shown.stderr and "models/best loss" in shown.stdout
    first, second = sorted(run["run_id"] for run in gpurun.json("compare", sweep)["runs"])[:2]
    document = gpurun.json("compare", first, second)
    assert [row["name"] for row in document["settings"]] == ["environment.variables.SEED"]
    assert document["code_files"] == [] and len(document["metrics"]) == 5


def _one_of_each_experiment_stays_on_a_box(gpurun: Gpurun, boxes: list[Rented], sweep: str) -> None:
    cleaned = gpurun.json("clean", sweep, "--yes", "--keep", "1")["boxes"]
    assert {each["host"] for each in cleaned} == {box.address for box in boxes}
    there = {box.address: {path.name for path in box.runs.iterdir()} for box in boxes}
    for each in cleaned:
        stays = {one["run_id"]: one["group"] for one in each["experiment"] if not one["goes"]}
        assert set(stays) == there[each["host"]] and len(set(stays.values())) == len(stays)
        assert {one["group"] for one in each["experiment"]} == set(stays.values()), "an experiment has none left"
    assert sum(map(len, there.values())) < 6


def test_a_terminal_is_shown_the_runs_until_they_are_over(gpurun: Gpurun, boxes: list[Rented], job: Any) -> None:
    sweep = submit(gpurun, job, boxes, wait="yes")
    shown = Terminal(gpurun, "sweep", sweep)
    shown.until("6 runs: 6 running")
    shown.until("grid-lr-0-5-seed-1-2")
    listed = gpurun.json("list", "--refresh")
    assert {run["status"]["phase"] for run in listed["runs"]} == {"running"} and not listed["unreachable"]
    left = Terminal(gpurun, "watch", sweep)
    left.until("6 runs: 6 running")
    left.press("q")
    left.until(f"The runs go on: gpurun sweep {sweep}")
    assert left.process.wait(30) == 130
    stopped = gpurun.json("stop", sweep)["runs"]
    assert {run["status"]["outcome"] for run in stopped} == {"cancelled"} and len(stopped) == 6
    shown.until(f"sweep {sweep}; 6 runs: 6 cancelled")
    assert shown.process.wait(30) == 0


class Terminal:
    """A command on a terminal of 80 columns."""

    def __init__(self, gpurun: Gpurun, *words: str) -> None:
        self._end, other = pty.openpty()
        environment = {**gpurun.environment(), "COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
        self.process = subprocess.Popen(
            gpurun.argv(*words), cwd=REPOSITORY, env=environment, stdin=other, stdout=other, stderr=other
        )
        os.close(other)
        self._text = ""

    def press(self, key: str) -> None:
        os.write(self._end, key.encode())

    def until(self, text: str) -> None:
        """Reads on until the text was shown."""
        while text not in self._text:
            try:
                self._text += os.read(self._end, 65536).decode("utf-8", "replace")
            except OSError:
                pytest.fail(f"{text!r} was never shown: {self._text[-3000:]}")
