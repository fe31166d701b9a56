"""``gpurun predict --host``: the same file as on this machine, by a run on the box."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli import Gpurun
from tests.support.document_types import TYPES, differences
from tests.support.models.smoke_models import classifier_run
from tests.support.models.tiny_models import CORPUS


def test_a_folder_predicts_on_a_box_what_it_predicts_here(gpurun: Gpurun, tmp_path: Path) -> None:
    folder = classifier_run(tmp_path, "bert", rank=0)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in CORPUS * 5))
    words = ["predict", str(folder), "--input", "texts.jsonl", "--device", "cpu", "--keep", "n"]
    here = gpurun.json(*words, "--output", "here.jsonl", cwd=tmp_path)
    there = gpurun.json(*words, "--output", "there.jsonl", "--host", "local", cwd=tmp_path)
    assert differences(there, TYPES["Predict"], set()) == []
    assert {**there, "output": 0, "seconds": 0, "peak_memory": 0, "target": 0} == {
        **here, "output": 0, "seconds": 0, "peak_memory": 0, "target": 0,
    }  # fmt: skip
    rows = [
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("here.jsonl", "there.jsonl")
    ]
    assert [{**row, "file": ""} for row in rows[0]] == [{**row, "file": ""} for row in rows[1]]
    (listed,) = gpurun.json("list")["runs"]
    assert listed["job_name"] == "predict-there" and listed["status"]["outcome"] == "succeeded"
