"""``data: [run:ID/path]`` and ``settings.adapter: run:ID`` over SSH: on the box that has the run, and on one that has not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.boxes.mortal_box import MortalBox
from tests.support.cli import Gpurun
from tests.support.models.language_data import pairs, write_lines
from tests.support.models.plain_adapter import causal_adapter
from tests.support.models.tiny_models import save_tiny_model

WRITE = """
import os, pathlib
best = pathlib.Path("out/best")
best.mkdir()
(best / "notes.txt").write_text(os.environ["GPURUN_RUN_ID"])
(best / "weights.bin").write_bytes(bytes(1 << 20))
pathlib.Path("out/table.csv").write_text("a,b")
"""
READ = "print(open('start/notes.txt').read(), open('table.csv').read(), len(open('start/weights.bin', 'rb').read()))"


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[MortalBox, MortalBox]]:
    made = MortalBox(tmp_path / "box-a"), MortalBox(tmp_path / "box-b")
    yield made
    for box in made:
        box.end()


def job_file(folder: Path, name: str, script: str, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(script)
    job = {
        "name": name,
        "command": ["python3", f"{name}.py"],
        "resources": {"gpus": 0},
        "code": {"exclude": ["*.json"]},
        **fields,
    }
    (folder / f"{name}.json").write_text(json.dumps(job))
    return folder / f"{name}.json"


def submit(gpurun: Gpurun, file: Path, host: str, *words: str, check: int = 0) -> Any:
    return gpurun.json("submit", str(file), "--host", host, *words, check=check)


def read_back(gpurun: Gpurun, run_id: str) -> str:
    said = gpurun("logs", run_id, "-f").stdout
    assert gpurun.json("status", run_id)["status"]["outcome"] == "succeeded", said
    return str(said)


def test_a_run_reads_what_another_wrote_on_its_box_and_on_another_one_where_it_is_brought(
    gpurun: Gpurun, tmp_path: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, other = boxes
    writer = submit(gpurun, job_file(tmp_path / "p", "writer", WRITE, outputs=["out"]), box.address)["runs"][0][
        "run_id"
    ]
    gpurun("logs", writer, "-f")
    data = [{"path": f"run:{writer}/out/best", "as": "start"}, f"run:{writer}/out/table.csv"]
    reader = job_file(tmp_path / "p", "reader", READ, data=data)
    expected = f"{writer} a,b {1 << 20}\n"

    there = submit(gpurun, reader, box.address)["runs"][0]["run_id"]
    assert read_back(gpurun, there) == expected
    assert not (gpurun.home / "runs" / writer / "outputs").exists(), "nothing of it came home"
    gpurun("resume", there)
    assert read_back(gpurun, gpurun.json("list")["runs"][-1]["run_id"]) == expected

    moved = submit(gpurun, reader, other.address)["runs"][0]["run_id"]
    assert read_back(gpurun, moved) == expected
    assert (gpurun.home / "runs" / writer / "outputs/out/table.csv").read_text() == "a,b"
    gpurun("fetch", writer)
    box.die()  # all of it is home
    assert read_back(gpurun, submit(gpurun, reader, other.address)["runs"][0]["run_id"]) == expected


def test_what_is_not_there_is_told_before_anything_is_pushed_and_leaves_no_record(
    gpurun: Gpurun, tmp_path: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, other = boxes
    writer = submit(gpurun, job_file(tmp_path / "p", "writer", WRITE, outputs=["out"]), box.address)["runs"][0][
        "run_id"
    ]
    gpurun("logs", writer, "-f")
    for host in (box.address, other.address):
        reader = job_file(tmp_path / "p", "reader", READ, data=[f"run:{writer}/out/nothing"])
        told = gpurun("submit", str(reader), "--host", host, check=2).stderr
        assert "has no output out/nothing" in told and "Nothing was" in told
    stranger = "nobody-20260102-142030-7f3a"
    reader = job_file(tmp_path / "p", "reader", READ, data=[f"run:{stranger}/out"])
    assert (
        f"neither the box nor this machine knows the run {stranger}"
        in gpurun("submit", str(reader), "--host", box.address, check=2).stderr
    )
    assert [run["run_id"] for run in gpurun.json("list")["runs"]] == [writer]
    wrong = job_file(tmp_path / "p", "wrong", READ, data=["run:writer/out", f"run:{writer}"])
    told = gpurun("validate", str(wrong), check=2).stdout
    assert "needs the whole id of a run" in told and f"such as run:{writer}/models/best" in told


def test_preferences_start_from_an_adapter_that_an_earlier_run_of_the_box_wrote_without_bringing_it_home(
    gpurun: Gpurun, tmp_path: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, _ = boxes
    folder = tmp_path / "p"
    folder.mkdir()
    save_tiny_model("qwen2", folder / "tiny")
    write_lines(folder / "pairs.jsonl", pairs())
    texts = [f"{pair['prompt']} {pair['chosen']}" for pair in pairs()]
    adapter = causal_adapter(folder / "tiny", folder / "adapter", texts, ["q_proj"])
    script = "import shutil; shutil.copytree('adapter', 'out/adapter')"
    trainer = job_file(folder, "trainer", script, outputs=["out"], data=["adapter"])
    first = submit(gpurun, trainer, box.address)["runs"][0]["run_id"]
    gpurun("logs", first, "-f")
    dpo = {
        "name": "dpo", "recipe": "preference", "data": ["tiny", "pairs.jsonl"], "resources": {"gpus": 0},
        "environment": {"interpreter": sys.executable},
        "settings": {
            "model": "./tiny", "adapter": f"run:{first}/out/adapter", "train": "pairs.jsonl", "max_length": 64, "max_steps": 1,
            "batch": {"size": 5}, "generation": {"examples": 0}, "evaluation": {"at_start": True},
        },
    }  # fmt: skip
    (folder / "dpo.json").write_text(json.dumps(dpo))
    second = submit(gpurun, folder / "dpo.json", box.address)["runs"][0]["run_id"]
    read_back(gpurun, second)
    outputs, place = Path(box.paths.run(second).outputs), f"from-runs/{first}/out/adapter"
    begun = json.loads((outputs / "training_metadata.json").read_text())["training"]["evaluations"][0]["metrics"]
    assert begun["loss"] == pytest.approx(0.693147, abs=1e-4) and begun["reward_margin"] == pytest.approx(0, abs=1e-4)
    assert f"going on from the adapter `{place}`" in (outputs / "models/best/README.md").read_text()
    weights = Path(box.paths.run(second).code) / place / "adapter_model.safetensors"
    assert weights.read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert not (gpurun.home / "runs" / first / "outputs").exists()
    record = json.loads((gpurun.home / "runs" / second / "run.json").read_text())
    assert place in record["data"] and {"path": f"run:{first}/out/adapter", "as": place} in record["job"]["data"]
