"""jobs/london_slm.yaml as it is, over SSH, in tiny form: only data, shape and length are swapped by --set."""

import shutil
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY, Gpurun

TEXT = "\n\n".join(
    f"In the year {year} the mayor walked along {street} and counted {year % 7} ships."
    for year in range(1700, 1800)
    for street in ("Strand", "Cheapside", "Fleet Street")
)
TINY = {
    "settings.vocabulary": 400,
    "settings.max_length": 32,
    "settings.model": "{layers: 2, width: 32, heads: 2}",
    "settings.max_steps": 12,
    "settings.batch.size": 8,
    "settings.optimizer.learning_rate": 0.003,
    "settings.schedule.warmup": 2,
    "settings.checkpoint.every_steps": 4,
    "settings.evaluation.every_steps": 6,
    "settings.validation_share": 0.1,
    "resources.gpus": 0,
    "resources.vram": "null",
    "resources.disk": "1GiB",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The repository's job file beside a small corpus."""
    (tmp_path / "project" / "jobs").mkdir(parents=True)
    shutil.copy(REPOSITORY / "jobs" / "london_slm.yaml", tmp_path / "project" / "jobs")
    corpus = tmp_path / "project" / "data" / "london_historical" / "london_historical_corpus_comprehensive.txt"
    corpus.parent.mkdir(parents=True)
    corpus.write_text(TEXT)
    (corpus.parent / "downloads").mkdir()
    (corpus.parent / "downloads" / "raw.txt").write_text("not for the box")
    return tmp_path / "project" / "jobs" / "london_slm.yaml"


def test_train_list_try_fetch_and_smoke_test(gpurun: Gpurun, project: Path) -> None:
    gpurun.submit(project, *(word for key, value in TINY.items() for word in ("--set", f"{key}={value}")))
    log = gpurun("logs", "-f").stdout
    assert not list((gpurun.box_root / "data").rglob("raw.txt"))
    assert "training a tokenizer of 400 tokens" in log and "finished at step 12 of 12" in log

    listed = gpurun.json("checkpoints")["checkpoints"]
    assert [each["name"] for each in listed] == ["step-000004", "step-000006", "step-000008", "step-000012", "best"]
    assert all(each["on_box"] and not each["here"] for each in listed)

    ask = ["--temperature", "0", "--max-new-tokens", "6"]
    on_box = gpurun.json("sample", "--prompt", "In the year", "--prompt", "The mayor", *ask)
    assert on_box["on_box"] and [each["prompt"] for each in on_box["answers"]] == ["In the year", "The mayor"]

    gpurun("fetch")
    assert all(each["here"] for each in gpurun.json("checkpoints")["checkpoints"])
    here = gpurun.json("sample", "--prompt", "In the year", *ask)
    assert not here["on_box"] and here["answers"][0]["text"] == on_box["answers"][0]["text"]

    assert gpurun.json("smoke-test", "--device", "cpu")["passed"]
    assert (gpurun.box_root / "cache" / "tokens" / "london-slm" / "rows" / "train.bin").is_file()
