"""The queue from the user's side, over SSH: turns of several job files, what a run waits for, a GPU that is set aside and used again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from remote_payload.agent.box.files import read_json
from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun

BROKEN = """
import os, sys
if "GPU-0" in os.environ["GPURUN_GPUS"].split():
    sys.exit("RuntimeError: CUDA error: uncorrectable ECC error encountered")
open("out/result", "w").write("well")
"""


def with_gpus(box: Box, folder: Path, count: int) -> None:
    row = {"name": "RTX", "memory_total": 24 << 30, "memory_used": 0, "utilisation": 0}
    (folder / "gpus.json").write_text(json.dumps([{"number": n, "uuid": f"GPU-{n}", **row} for n in range(count)]))
    box.configure(GPURUN_FAKE_GPUS=str(folder / "gpus.json"))


def job_file(folder: Path, name: str, **fields: object) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(BROKEN)
    body = {"name": name, "command": ["python3", "main.py"], "outputs": ["out"], "queue": True, **fields}
    (folder / f"{name}.json").write_text(json.dumps(body))
    return str(folder / f"{name}.json")


@pytest.mark.stand_in
def test_job_files_take_turns_and_a_gpu_that_fails_two_runs_gets_no_third(
    gpurun: Gpurun, box: Box, tmp_path: Path
) -> None:
    with_gpus(box, tmp_path, 2)
    needs = {"resources": {"gpus": 1, "vram": "20GiB", "disk": "1GiB"}}
    two = {"sweep": {"environment.variables.SEED": ["1", "2"]}, "keep_finished": 1, **needs}
    files = [job_file(tmp_path / "p", "a", **two), job_file(tmp_path / "p", "b", **two)]
    # 10 where one has failed on the broken GPU before the last one was launched.
    told = gpurun("submit", *files, "--host", box.address(), "--json", check=None)
    assert told.returncode in (0, 10), told.stderr
    submitted = json.loads(told.stdout)["runs"]
    assert [run["job_name"] for run in submitted] == ["a-seed-1", "b-seed-1", "a-seed-2", "b-seed-2"]
    launched = [read_json(str(box.root / "runs" / run["run_id"] / "launch.json")) or {} for run in submitted]
    assert {(each["vram"], each["disk"]) for each in launched} == {(20 << 30, 1 << 30)}
    groups = [each["asked"]["group"] for each in launched]
    assert groups == [groups[0], groups[1]] * 2 and None not in groups and groups[0] != groups[1]

    def there() -> dict[str, object]:
        found: dict[str, object] = gpurun.json("list", "--host", box.address())
        return found

    wait_until(lambda: len(list(box.root.glob("runs/*/manifest.json"))) == 4)  # the last thing that a supervisor writes
    ends = [run["status"]["cause"] or run["status"]["outcome"] for run in there()["runs"]]  # type: ignore[attr-defined]
    assert sorted(ends) == ["gpu_broken", "gpu_broken", "succeeded", "succeeded"], ends
    (aside,) = there()["set_aside"]  # type: ignore[misc]
    assert aside["gpu"] == 0 and len(aside["runs"]) == 2
    shown = gpurun("list", "--host", box.address())
    assert re.search(
        r"GPU 0 is set aside: a\S+ and \S+ failed on it at once \(RuntimeError: CUDA error: uncorr", shown.stderr
    )

    assert "GPU: GPU 0 is set aside" in gpurun("check", files[0], "--host", box.address()).stdout

    both = job_file(tmp_path / "p", "both", resources={"gpus": 2})
    waits = gpurun.json("submit", both, "--host", box.address())["runs"][0]["run_id"]
    wait_until(
        lambda: (
            "use-gpu HOST 0" in ((read_json(str(box.root / "runs" / waits / "owner.json")) or {}).get("waiting") or "")
        )
    )
    assert "gpurun hosts use-gpu HOST 0" in gpurun("status", waits).stdout
    assert "was not set aside" in gpurun("hosts", "use-gpu", box.address(), "1").stdout
    assert "GPU 0 is given to runs again" in gpurun("hosts", "use-gpu", box.address(), "0").stdout
    wait_until(lambda: len(list(box.root.glob("runs/*/manifest.json"))) == 5)
    assert gpurun.json("status", waits)["status"]["cause"] == "gpu_broken" and there()["set_aside"] == []
