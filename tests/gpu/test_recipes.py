"""Every recipe from its first line to its last, as its job file has it: two steps, evaluation, a checkpoint, answers, the smoke
test's reference; then once more, resumed from the first checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_payload.train.state.checkpoint import checkpoints_in
from tests.gpu import jobs
from tests.gpu.bounds import check
from tests.gpu.runs import Done, row_of, run_job


def resumed(device, recipe: str, settings: dict, folder: Path) -> Done:
    """A third step, from the checkpoint of the second."""
    more = {**settings, "max_steps": 3, "epochs": 4}
    done = run_job(device, recipe, more, folder, resume="auto", steps_only=True)
    assert len(done.seen.steps) == 1, done.run.log
    assert "resumed from step-000002" in done.run.log
    return done


def complete(done: Done) -> None:
    """The folder that a run is for, and its checkpoint."""
    best = done.run.outputs / "models" / "best"
    for name in ("gpurun.json", "metrics.json", "README.md", "manifest.json", "smoke/expected.safetensors"):
        assert (best / name).is_file(), name
    assert [found.step for found in checkpoints_in(done.run.outputs / "checkpoints")][-1:] == [2]


def test_classify(device, request, tmp_path):
    settings = jobs.legal(tmp_path, "EmbeddingGemma 300M", 4, ragged=True)
    done = run_job(device, "classify", settings, tmp_path)
    complete(done)
    resumed(device, "classify", settings, tmp_path)
    check(request, row_of(done, "classify", "EmbeddingGemma 300M", "whole run, lora, ragged, micro 4 × 2048"), done)


def test_sft_of_conversations_and_preference(device, request, tmp_path):
    settings = jobs.brie(tmp_path, "Qwen 2.5 0.5B", 2, generation={**jobs.SHORT, "temperature": 0.75})
    done = run_job(device, "sft", settings, tmp_path)
    complete(done)
    adapter = (done.run.outputs / "models" / "best").rename(tmp_path / "adapter")
    done.run.folder.rename(tmp_path / "sft")
    settings = jobs.pairs(tmp_path, "Qwen 2.5 0.5B", adapter, 1)
    done = run_job(device, "preference", settings, tmp_path)
    complete(done)
    resumed(device, "preference", settings, tmp_path)
    check(request, row_of(done, "preference", "Qwen 2.5 0.5B", "whole run, lora, micro 1 pair × 2 × 1024"), done)


def test_sft_of_completions(device, request, tmp_path):
    settings = jobs.edgejson(tmp_path, "SmolLM2 135M", 4, generation=jobs.SHORT)
    done = run_job(device, "sft", settings, tmp_path)
    complete(done)
    resumed(device, "sft", settings, tmp_path)
    check(request, row_of(done, "sft", "SmolLM2 135M", "whole run, lora on all layers, micro 4 × 1024"), done)


def test_finetune(device, request, tmp_path):
    settings = jobs.death_dates(tmp_path, "OLMo 2 7B", 1)
    done = run_job(device, "finetune", settings, tmp_path)
    complete(done)
    resumed(device, "finetune", settings, tmp_path)
    check(request, row_of(done, "finetune", "OLMo 2 7B", "whole run, full, bf16, checkpointing, micro 1 × 2048"), done)


@pytest.mark.parametrize(
    ("job", "model", "micro"), [("london_slm", "GPT-2 117M", 18), ("london_regular", "GPT-2 354M", 2)]
)
def test_pretrain(device, request, tmp_path, job, model, micro):
    settings = jobs.london(tmp_path, job, micro)
    done = run_job(device, "pretrain", settings, tmp_path, count_flops=True)
    complete(done)
    resumed(device, "pretrain", settings, tmp_path)
    shape = f"whole run, full, micro {micro} × {settings['max_length']}"
    check(request, row_of(done, "pretrain", model, shape), done)
