"""A box whose address changes: its runs are found at the new one, and no run is ever looked for on a box that does not have it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.boxes.rented import Rented
from tests.support.cli import Gpurun

MODEL = 'import pathlib; pathlib.Path("models/w").write_text("w"); print("trained")'
WAITS = 'import pathlib, time\nprint("ready", flush=True)\nwhile not pathlib.Path("stop").exists(): time.sleep(0.05)'


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[Rented, Rented]]:
    rented = Rented(tmp_path / "box-a"), Rented(tmp_path / "box-b")
    yield rented
    for box in rented:
        box.local.stop()


def submit(gpurun: Gpurun, file: Path, box: Rented) -> str:
    run: str = gpurun.json("submit", str(file), "--host", box.address)["runs"][0]["run_id"]
    return run


def host_of(gpurun: Gpurun, run_id: str) -> str:
    host: str = json.loads((gpurun.home / "runs" / run_id / "run.json").read_text())["host"]
    return host


def test_a_run_is_followed_to_the_new_address_by_every_command_that_takes_one(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented]
) -> None:
    box = boxes[0]
    run_id = submit(gpurun, job(WAITS), box)
    old, new = box.address, box.move()
    assert gpurun.json("status", run_id)["unreachable"] and host_of(gpurun, run_id) == old
    seen = gpurun.json("status", run_id, "--host", new)
    assert seen["status"]["phase"] == "running" and host_of(gpurun, run_id) == new
    told = gpurun("logs", run_id, "--host", box.move())
    assert "ready" in told.stdout and "also pinned for [127.0.0.1]" in told.stderr and "is on ssh -p" in told.stderr
    gpurun("stop", run_id, "--grace", "0", "--host", box.move())
    gpurun("fetch", run_id, "--host", box.move())
    assert gpurun.json("done", run_id, "--host", box.move())["safe_to_destroy"]
    after = gpurun.json("resume", run_id, "--host", box.move())
    assert after["parent"] == run_id and after["host"] == box.address
    gpurun("stop", after["run_id"], "--grace", "0")
    gpurun("stop", "--all", "--host", new, check=2)


def test_a_whole_host_is_moved_and_its_old_address_is_forgotten(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented]
) -> None:
    box, other = boxes
    runs = [submit(gpurun, job(MODEL), box) for _ in range(2)]
    elsewhere = submit(gpurun, job(MODEL, name="other"), other)
    gpurun("logs", runs[0], "-f")
    gpurun("hosts", "set", box.address, "--destroy", "tool 'one word' 77")
    old, new = box.address, box.move()
    refused = gpurun.json("hosts", "move", old, other.address, check=3)["error"]
    assert "is not the one that was at" in refused["message"] and host_of(gpurun, runs[0]) == old
    moved = gpurun.json("hosts", "move", old, new)
    assert sorted(moved["runs"]) == sorted(runs) and moved["left"] == [] and moved["keys_removed"] == 1
    assert {host_of(gpurun, run_id) for run_id in runs} == {new} and host_of(gpurun, elsewhere) == other.address
    noted = {host["typed"]: host["destroy"] for host in gpurun.json("hosts")["hosts"]}
    assert old not in noted and noted[new] == ["tool", "one word", "77"]
    assert "knows no host" in gpurun("hosts", "move", old, new, check=2).stderr
    assert "given twice" in gpurun("hosts", "move", new, new, check=2).stderr


def test_a_copy_of_a_run_on_another_box_is_not_taken_for_it(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented]
) -> None:
    box, other = boxes
    run_id, elsewhere = submit(gpurun, job(MODEL), box), submit(gpurun, job(MODEL, name="other"), other)
    gpurun("logs", run_id, "-f")
    runs = other.local.home / ".gpurun-box" / "runs"
    (box.local.home / ".gpurun-box" / "runs" / run_id).rename(runs / run_id)
    assert {path.name for path in runs.iterdir()} == {run_id, elsewhere}
    said = gpurun("status", run_id, "--host", other.address, check=12).stderr
    assert "is another box than the one it was started on" in said and host_of(gpurun, run_id) == box.address


@pytest.mark.parametrize("seed", range(3))
def test_a_record_always_names_an_address_at_which_its_run_was(
    gpurun: Gpurun, job: Any, boxes: tuple[Rented, Rented], seed: int
) -> None:
    """Random histories of two boxes that change their addresses, and of a user who types right and wrong ones."""
    draw = random.Random(f"moves-{seed}")
    owner = {submit(gpurun, job(MODEL, name=f"j{each}"), boxes[each % 2]): boxes[each % 2] for each in range(3)}
    had = {box: [box.address] for box in boxes}  # every address that a box has had
    for _ in range(6):
        box = draw.choice(boxes)
        if draw.random() < 0.5:
            had[box].append(box.move())
        before = {run_id: host_of(gpurun, run_id) for run_id in owner}
        run_id, target = draw.choice(list(owner)), draw.choice(boxes)
        if draw.random() < 0.5:
            ended = gpurun("status", run_id, "--host", target.address, check=None)
            right = target is owner[run_id]
        else:
            old = before[run_id]
            ended = gpurun("hosts", "move", old, target.address, check=None)
            right = target is owner[run_id] and old != target.address
        assert (ended.returncode == 0) == right, (ended.stdout, ended.stderr)
        for each, host in before.items():
            now = host_of(gpurun, each)
            assert now in had[owner[each]], "a record names a box that never had its run"
            assert now == host or (right and now == target.address)
        if right:
            assert host_of(gpurun, run_id) == target.address
