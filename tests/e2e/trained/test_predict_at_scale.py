"""``gpurun predict`` with many rows: killed again and again, and how much memory it takes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from tests.support.cli import Gpurun
from tests.support.models.tiny_models import tiny_tokenizer

pytestmark = pytest.mark.slow
ROWS, KILLS = int(os.environ.get("PREDICT_ROWS", "200000")), int(os.environ.get("PREDICT_KILLS", "20"))
FEW, MANY = 10_000, int(os.environ.get("PREDICT_MANY", "1000000"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=384, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=1,
        max_position_embeddings=64,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def gpurun(tmp_path: Path) -> Gpurun:
    return Gpurun(tmp_path / "home", {"OMP_NUM_THREADS": "1"})


def write(path: Path, rows: int) -> Path:
    generator = random.Random(rows)
    words = ["ship", "licence", "install", "copy", "London"]
    with path.open("w") as file:
        for index in range(rows):
            text = " ".join(generator.choices(words, k=generator.randrange(1, 8)))
            file.write(json.dumps({"id": index, "text": text}) + "\n")
    return path


def test_killed_at_random_moments_every_row_is_there_once_in_order(gpurun: Gpurun, model: Path, tmp_path: Path) -> None:
    """Now the command alone is killed, so that its process is an orphan for a while, now both."""
    generator = random.Random(7)
    texts = write(tmp_path / "texts.jsonl", ROWS)
    output = tmp_path / "out.jsonl"
    words = ["predict", str(model), "--input", str(texts), "--output", str(output), "--keep", "id", "--device", "cpu"]
    kills = 0
    while kills < KILLS and not output.exists():
        process = subprocess.Popen(
            [sys.executable, "-m", "runner.cli", *words], env=gpurun.environment(), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(generator.uniform(0, 12))  # the moment is the trial
        if generator.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        kills += process.wait() == -signal.SIGKILL
    done: dict[str, Any] = {"rows": ROWS} if output.exists() else gpurun.json(*words, timeout=600)
    with output.open() as file:
        ids = [json.loads(line)["id"] for line in file]
    assert ids == list(range(ROWS)) and done["rows"] == ROWS
    assert kills, "nothing was killed"
    print(f"{ROWS} rows, {kills} kills")


def test_peak_memory_does_not_grow_with_the_rows(gpurun: Gpurun, model: Path, tmp_path: Path) -> None:
    peaks = {}
    for rows in (FEW, MANY):
        texts, output = write(tmp_path / f"{rows}.jsonl", rows), tmp_path / f"{rows}-out.jsonl"
        words = ["predict", str(model), "--input", str(texts), "--output", str(output), "--device", "cpu"]
        found = gpurun.json(*words, timeout=900)
        peaks[rows] = found["peak_memory"]
        print(f"{rows} rows: {found['peak_memory'] / 2**20:.0f} MiB, {rows / found['seconds']:.0f} rows/s")
    assert peaks[MANY] < 1.05 * peaks[FEW] + (8 << 20)
