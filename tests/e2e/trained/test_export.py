"""The demo's published MiniLM, trained on the embedded box, fetched, exported as a whole, and used by transformers alone."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from tests.support.cli import REPOSITORY, Gpurun
from tests.support.models.card_snippets import Task, run_without_gpurun, snippet_of
from tests.support.models.exported import spoil
from tests.support.models.language_data import write_lines

SHORT = {
    "resources": "{gpus: 0, disk: 1GiB}", "environment.variables.OMP_NUM_THREADS": "1", "settings.max_steps": 4,
    "settings.batch.size": 8, "settings.max_length": 64, "settings.smoke_rows": 6,
}  # fmt: skip
TRAIN, VALIDATION = 24, 8  # passages of each class


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The demo's job file with the encoder that ``make demo`` takes, and a few of its texts."""
    prepare = _prepare()
    data = tmp_path / "jobs/demo/data"
    prepare.copy_encoder(data / "minilm")
    shutil.copy(REPOSITORY / "jobs/demo.yaml", tmp_path / "jobs")
    found = defaultdict(list)
    for row in prepare.passages():
        if len(found[row["label"]]) < TRAIN + VALIDATION:
            found[row["label"]].append(row)
        if all(len(found[label]) == TRAIN + VALIDATION for label in ("legal", "other")):
            break
    for name, part in (("train", slice(TRAIN)), ("validation", slice(TRAIN, None))):
        write_lines(data / f"text/{name}.jsonl", [row for rows in found.values() for row in rows[part]])
    return tmp_path / "jobs/demo.yaml"


def _prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", REPOSITORY / "jobs/demo/prepare.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demos_minilm_is_used_without_gpurun_once_it_is_exported(
    gpurun: Gpurun, demo: Path, tmp_path: Path
) -> None:
    run = gpurun.submit(demo, *(word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")))
    gpurun("logs", run, "-f")
    best = Path(gpurun.json("fetch", run)["into"]) / "models/best"
    (made,) = gpurun.json("export", run, "--merged", "--into", str(tmp_path / "out"))["exports"]
    whole = tmp_path / "out/merged"
    assert Path(made["path"]) == whole and made["compared_with"] == "box" and made["merged_layers"] > 0
    assert not made["comparison"]["problems"] and (whole / "model.safetensors").stat().st_size > 80_000_000

    rows = [json.loads(line)["text"] for line in (best / "smoke/inputs.jsonl").read_text().splitlines()]
    task = Task(whole.parent, snippet_of(whole), f"found = logits_of({rows!r}).tolist()", offline=True)
    answer = run_without_gpurun({"card": task}, tmp_path)["card"]
    on_the_box = load_file(best / "smoke/expected.safetensors")["logits"]
    torch.testing.assert_close(torch.tensor(answer["found"]), on_the_box, atol=1e-4, rtol=1e-4)
    assert on_the_box.std(0).min() > 0.01, "equal logits for all texts prove nothing"

    spoil(whole, seed=1)
    assert "does not predict" in gpurun("smoke-test", str(whole), "--device", "cpu", check=6).stderr
    why = gpurun("export", run, "--gguf", "Q8_0", "--into", str(tmp_path / "gguf"), check=2).stderr
    assert "would lose its head" in why and not (tmp_path / "gguf").exists()
