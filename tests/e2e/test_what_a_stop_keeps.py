"""Boxes of RunPod's and vast.ai's shape, stopped and started again: the root lies where a stop keeps it, and a run goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.boxes.provider_box import Rent
from tests.support.cli import Gpurun

# Counts to 60, saving each number, and tells where it began. It waits at 5 unless it is resumed.
COUNTS = """
import os, pathlib, time
saved = pathlib.Path("models/count")
count = int(saved.read_text()) if "GPURUN_RESUME" in os.environ else 0
print("begins at", count, flush=True)
while count < 60:
    count += 1
    pathlib.Path("models/new").write_text(str(count))
    os.replace("models/new", saved)
    while count == 5 and "GPURUN_RESUME" not in os.environ: time.sleep(0.05)
print("counted", flush=True)
"""
MODEL = 'import pathlib; pathlib.Path("models/w").write_text("w")'
RUNPOD = {"RUNPOD_POD_ID": "k3x9abcd", "RUNPOD_API_KEY": "rpa_not_to_be_told"}
VAST = {"CONTAINER_ID": "27141", "VAST_CONTAINERLABEL": "C.27141", "CONTAINER_API_KEY": "not_to_be_told"}


def submit(gpurun: Gpurun, file: Any, address: str) -> tuple[str, str]:
    done = gpurun("submit", str(file), "--host", address)
    run_id = json.loads(gpurun("list", "--json").stdout)["runs"][0]["run_id"]
    assert "not_to_be_told" not in done.stderr
    return run_id, next(line for line in done.stderr.splitlines() if "place:" in line)


def noted_volume(gpurun: Gpurun, address: str) -> str | None:
    volume: str | None = next(host["volume"] for host in gpurun.json("hosts")["hosts"] if host["typed"] == address)
    return volume


def wait_for_count(gpurun: Gpurun, run_id: str) -> None:
    following = gpurun.start("logs", run_id, "-f")
    assert following.stdout is not None and following.stdout.readline().startswith("begins at 0")
    following.terminate()
    following.communicate(timeout=20)


def resumed_at(gpurun: Gpurun, run_id: str) -> int:
    """Resumes the run to its end; the number that it began at."""
    again = gpurun.json("resume", run_id)["run_id"]
    log = gpurun("logs", again, "-f").stdout
    assert "counted" in log
    gpurun("fetch", again)
    assert (gpurun.home / "runs" / again / "outputs" / "models" / "count").read_text() == "60"
    return int(log.split("begins at ")[1].split()[0])


def test_a_runpod_pod_that_was_stopped_goes_on_from_its_volume(gpurun: Gpurun, job: Any, rent: Rent) -> None:
    pod = rent("/workspace", **RUNPOD)
    old = pod.start()
    run_id, said = submit(gpurun, job(COUNTS), old)
    assert "/workspace, a volume of this RunPod pod" in said and "lost when it is destroyed" in said
    assert noted_volume(gpurun, old) == "/workspace"
    assert (pod.volume / ".gpurun-box" / "runs" / run_id).is_dir()
    assert not pod.on_disk("/root/.gpurun-box").exists()
    wait_for_count(gpurun, run_id)
    pod.stop(keeps_disk=False)
    new = pod.start()
    assert gpurun.json("status", run_id, "--host", new)["status"]["outcome"] == "interrupted"
    assert noted_volume(gpurun, new) == "/workspace"
    assert resumed_at(gpurun, run_id) == 5
    for text in gpurun.home.rglob("*"):
        assert not text.is_file() or b"not_to_be_told" not in text.read_bytes()


def test_a_vast_instance_that_was_paused_goes_on_from_its_disk(gpurun: Gpurun, job: Any, rent: Rent) -> None:
    instance = rent(**VAST)
    run_id, said = submit(gpurun, job(COUNTS), instance.start())
    assert "/root, on the disk of this vast.ai instance" in said and "kept when the vast.ai instance is stopped" in said
    assert instance.on_disk(f"/root/.gpurun-box/runs/{run_id}").is_dir()
    wait_for_count(gpurun, run_id)
    instance.stop(keeps_disk=True)
    new = instance.start()
    assert gpurun.json("status", run_id, "--host", new)["status"]["outcome"] == "interrupted"
    assert resumed_at(gpurun, run_id) == 5


def test_a_pod_without_a_volume_is_told_that_a_stop_deletes_all(gpurun: Gpurun, job: Any, rent: Rent) -> None:
    pod = rent(**RUNPOD)
    address = pod.start()
    file = str(job("print('done')"))
    checked = gpurun.json("check", file, "--host", address)
    (place,) = [each for each in checked["findings"] if each["what"] == "place"]
    assert place["verdict"] == "warn" and "a stop deletes all of it" in place["said"] and "Fetch" in place["hint"]
    assert noted_volume(gpurun, address) == "~"


@pytest.mark.parametrize("seed", [4, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 1, 2, 3, 5))])
def test_a_root_once_chosen_stays_whatever_happens_to_the_box(
    gpurun: Gpurun, job: Any, rent: Rent, tmp_path: Path, seed: int
) -> None:
    """Random histories of a pod: its note is lost, another folder is named, it is stopped. The run is always found where it is."""
    draw = random.Random(f"stops-{seed}")
    pod, file = rent("/workspace", **RUNPOD), str(job(MODEL))
    address = pod.start()
    first = draw.choice(["/root", "/workspace", None])  # None: it is chosen
    told = ["--volume", first] if first else []
    run_id = gpurun.json("submit", file, "--host", address, *told)["runs"][0]["run_id"]
    assert noted_volume(gpurun, address) == ("~" if first == "/root" else "/workspace")
    gpurun("logs", run_id, "-f")
    for number in range(3):
        event = draw.choice(["forget", "name another", "stop"])
        if event == "forget":
            gpurun("hosts", "forget", address)
        elif event == "name another":
            gpurun("hosts", "set", address, "--volume", draw.choice(["/opt", "/srv"]))
        else:
            pod.stop(keeps_disk=first == "/root")
            address = pod.start()
        into = tmp_path / f"fetched-{number}"
        gpurun("fetch", run_id, "--host", address, "--into", str(into))
        assert (into / "models" / "w").read_text() == "w", event
