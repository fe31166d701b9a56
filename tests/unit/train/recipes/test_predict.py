"""The recipe ``predict`` with two ranks writes what one writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.models.smoke_models import classifier_run
from tests.support.models.tiny_models import CORPUS

ROOT = Path(__file__).resolve().parents[4]


def test_two_ranks_write_what_one_does(tmp_path: Path) -> None:
    folder = classifier_run(tmp_path, "bert", rank=0)
    with (tmp_path / "texts.jsonl").open("w") as file:
        for index in range(5000):  # three windows
            file.write(json.dumps({"text": CORPUS[index % 7][: 5 + index % 11]}) + "\n")
    files = {"input": ["texts.jsonl"], "output": "out.jsonl"}
    settings = {"model": {"name": "mine", "folder": str(folder)}, "device": "cpu", "files": files}
    written = {}
    for ranks in (1, 2):
        run = tmp_path / f"run{ranks}"
        run.mkdir()
        (run / "job.json").write_text(json.dumps({"name": "a", "recipe": "predict", "settings": settings}))
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        done = subprocess.run(
            [sys.executable, *words, "-m", "remote_payload.recipes.predict"], cwd=tmp_path, capture_output=True, text=True,
            timeout=240, env={**os.environ, "GPURUN_RUN_DIR": str(run), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        reports = run / "outputs/reports"
        assert json.loads((reports / "predicted.json").read_text())["rows"] == 5000
        assert {path.name for path in reports.iterdir()} == {"predicted.json", "out.jsonl"}
        written[ranks] = (reports / "out.jsonl").read_bytes()
    assert written[1] == written[2]
