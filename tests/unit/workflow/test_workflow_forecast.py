"""What ``gpurun check`` predicts of a recipe's memory and disk, from its job file and the model's config.json."""

import json
from types import SimpleNamespace

import pytest

from runner.domain.answers.box import Box
from runner.domain.job import Job
from runner.jobfile import load
from runner.workflow.submission.forecast import forecast

OLMO_7B = {
    "model_type": "olmo2",
    "vocab_size": 100_352,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
GIB = 1 << 30


def box(memory: int = 80, disk: int = 1000) -> Box:
    """As far as a forecast looks at it: one GPU of so many GiB, so much free disk."""
    return SimpleNamespace(gpus=[SimpleNamespace(memory_total=memory * GIB)], disk_free=disk * GIB)


@pytest.fixture
def finetune(tmp_path):
    def write(**fields) -> Job:
        (tmp_path / "data" / "olmo").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "olmo" / "config.json").write_text(json.dumps(OLMO_7B))
        (tmp_path / "data" / "set.json").write_text("{}")
        settings = {
            "model": "data/olmo",
            "dataset": "data/set.json",
            "weights": "bf16",
            "batch": {"size": 8, "micro": 1, "activation_checkpointing": True},
            "checkpoint": {"every_epochs": 0.2, "at_start": True, "keep": None, "resumable": 1},
        }
        body = {"name": "mayors", "recipe": "finetune", "data": ["data"], **fields}
        body["settings"] = {**settings, **fields.get("settings", {})}
        (tmp_path / "job.yaml").write_text(json.dumps(body))
        return load(tmp_path / "job.yaml")

    return write


def test_olmo_7b_in_bf16_fits_80_gb_and_in_fp32_it_does_not(finetune):
    fits, _ = forecast(finetune(), box())
    assert fits.verdict == "ok" and "with micro-batch 1 of effective 8" in fits.said
    too_much, _ = forecast(finetune(settings={"weights": "fp32"}), box())
    assert too_much.verdict == "warn" and "the GPU has 80 GiB" in too_much.said


def test_the_disk_of_a_whole_sweep_is_counted(finetune):
    sweep = {"settings.epochs": [1, 5], "settings.seed": [0, 1, 2, 3, 4]}
    _, alone = forecast(finetune(), box())
    _, all_ten = forecast(finetune(sweep=sweep), box())
    assert alone.verdict == "ok" and "6 checkpoints of 13.6 GiB, 1 of them resumable" in alone.said
    assert all_ten.verdict == "warn" and "10 runs, 160 checkpoints" in all_ten.said
    assert float(all_ten.said.split(" GiB")[0].replace(",", "")) == pytest.approx(160 * 13.6 + 10 * 3 * 13.6, rel=0.01)


def test_a_retention_rule_is_counted_as_it_says(finetune):
    rule = {"checkpoint": {"every_epochs": 0.2, "keep": 2}}
    _, disk = forecast(finetune(settings=rule), box())
    assert "3 checkpoints of 13.6 GiB, 3 of them resumable" in disk.said


def test_a_model_from_nothing_is_forecast_from_its_shape(tmp_path):
    (tmp_path / "corpus.txt").write_text("x")
    body = {"name": "london", "recipe": "pretrain", "data": ["corpus.txt"], "settings": {"corpus": "corpus.txt"}}
    (tmp_path / "job.yaml").write_text(json.dumps(body))
    memory, disk = forecast(load(tmp_path / "job.yaml"), box(memory=24))
    assert memory.verdict == "ok" and "optimizer 0.8" in memory.said
    assert "4 checkpoints of 0.4 GiB" in disk.said
