"""``sft`` as its job files have it, at the real shape."""

from __future__ import annotations

import pytest

from tests.gpu import data
from tests.gpu.bounds import check
from tests.gpu.runs import row_of, run_job
from tests.gpu.shapes import model_folder
from tests.support.models.language_data import job_settings

CASES = [
    pytest.param("Qwen 2.5 0.5B", "lora", 2, False, id="qwen0.5B-lora"),
    pytest.param("Qwen 2.5 0.5B", "full", 1, False, id="qwen0.5B-full"),
]
SHORT = {"examples": 2, "max_new_tokens": 4, "temperature": 0.75, "latency_examples": 1}


@pytest.mark.parametrize(("model", "kind", "micro", "checkpointing"), CASES)
def test_brie(device, request, tmp_path, model, kind, micro, checkpointing):
    train = data.write_lines(tmp_path / "chat.jsonl", data.conversations(2 * micro, 1024))
    held_out = data.write_lines(tmp_path / "held_out.jsonl", data.conversations(2, 1024))
    settings = job_settings(
        "brie",
        model=str(model_folder(model, tmp_path / "model")),
        train=str(train),
        validation=str(held_out),
        max_steps=2,
        epochs=2,
        batch={"size": 2 * micro, "micro": micro, "activation_checkpointing": checkpointing},
        lora={"rank": 8, "alpha": 16, "dropout": 0.05} if kind == "lora" else {"rank": 0},
        generation=SHORT,
        smoke_rows=1,
    )
    done = run_job(device, "sft", settings, tmp_path, count_flops=not checkpointing)
    shape = f"{kind}, micro {micro} × 1024" + (", checkpointing" if checkpointing else "")
    check(request, row_of(done, "sft", model, shape), done)
