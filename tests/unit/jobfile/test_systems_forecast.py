"""The job files of the five systems with their models' real shapes: valid as they stand, and forecast as the reports measured."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from runner import hub
from runner.domain.answers.box import Box, Gpu
from runner.domain.job import Job
from runner.jobfile import load, load_runs
from runner.workflow.submission.checks import Finding
from runner.workflow.submission.models import read_models, runs_with_forecast
from runner.workflow.submission.verdicts import judge

JOBS = Path(__file__).resolve().parents[3] / "jobs"
GIB = 1 << 30
GEMMA = {
    "model_type": "gemma3_text", "vocab_size": 262_144, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 24,
    "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 256,
}  # fmt: skip
QWEN = {
    "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
OLMO = {
    "model_type": "olmo2", "vocab_size": 100_352, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip
SMOL = {
    "model_type": "llama", "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
}  # fmt: skip
CONFIGS = {
    "google/embeddinggemma-300m": GEMMA,
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN,
    "allenai/OLMo-2-1124-7B": OLMO,
    "HuggingFaceTB/SmolLM2-135M": SMOL,
}
SYSTEMS = ("legal", "brie", "brie_preference", "death_dates", "mayors", "london_slm", "london_regular", "edgejson")


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The repository's job files beside what they name; the hub knows the models' shapes."""
    monkeypatch.setattr(hub, "fetch_config", lambda model, revision=None: CONFIGS[model])
    shutil.copytree(JOBS, tmp_path / "jobs", ignore=shutil.ignore_patterns("demo*"))
    for name in SYSTEMS:
        for place in yaml.safe_load((JOBS / f"{name}.yaml").read_text())["data"]:
            file = tmp_path / place if Path(place).suffix else tmp_path / place / "part.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}\n")
    (tmp_path / "data/london_historical/london_historical_corpus_comprehensive.txt").write_text("x")
    adapter = {"r": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "lora_dropout": 0.05}
    (tmp_path / "adapters/brie/adapter_config.json").write_text(json.dumps(adapter))
    return tmp_path / "jobs"


def box(memory: int, gpus: int = 1, disk: int = 1000) -> Box:
    """As far as a forecast looks at it: so many GPUs of ``memory`` GiB, and plenty of everything else."""
    cards = tuple(Gpu(index, "a GPU", f"GPU-{index}", memory * GIB, 0, None) for index in range(gpus))
    return SimpleNamespace(gpus=cards, disk_free=disk * GIB, ram=2000 * GIB, ram_free=1900 * GIB)


def forecast(job: Job, where: Box) -> list[Finding]:
    runs = runs_with_forecast([job])
    return judge(runs, where, read_models(runs)).findings


def vram(file: Path, where: Box, *overrides: str) -> tuple[Finding, float, int]:
    """The finding with its GiB and micro-batch."""
    finding = forecast(load(file, overrides), where)[0]
    said = re.match(r"([\d.]+) GiB with micro-batch (\d+) of effective", finding.said)
    assert said, finding
    return finding, float(said[1]), int(said[2])


@pytest.mark.parametrize(("name", "runs"), [(name, 10 if name in ("death_dates", "mayors") else 1) for name in SYSTEMS])
def test_every_job_file_is_valid_as_it_stands(jobs, name, runs):
    assert len(load_runs(jobs / f"{name}.yaml", ())) == runs


@pytest.mark.parametrize(
    ("name", "memory", "gpus", "overrides", "least", "most"),
    [
        ("legal", 24, 1, ["settings.batch.micro=4"], 9.3, 11.2),  # measured: 10 to 12 GB on an RTX 3090
        ("legal", 24, 1, ["settings.batch.micro=16"], 24, 50),  # measured: out of memory
        ("brie", 16, 1, ["settings.batch.micro=1"], 3, 6),
        ("death_dates", 80, 1, ["settings.batch.activation_checkpointing=false"], 68, 80),  # measured: 79 GB
        ("mayors", 80, 8, [], 55, 70),  # with activations recomputed, as the job file has it
        ("london_regular", 24, 2, ["settings.batch.micro=2"], 8, 13),
        ("edgejson", 16, 1, ["settings.batch.micro=4"], 5, 9.3),  # measured: 10 GB with whole logits
    ],
)
def test_the_forecast_is_what_the_report_measured(jobs, name, memory, gpus, overrides, least, most):
    finding, predicted, _ = vram(jobs / f"{name}.yaml", box(memory, gpus), *overrides)
    assert least <= predicted <= most
    assert (finding.verdict == "ok") == (predicted <= memory)


@pytest.mark.parametrize(
    ("name", "memory", "gpus"),
    [("legal", 24, 1), ("brie", 8, 1), ("brie_preference", 8, 1), ("edgejson", 16, 1), ("london_slm", 24, 2), ("mayors", 80, 8)],
)  # fmt: skip
def test_with_an_automatic_micro_batch_it_fits_the_reports_gpu(jobs, name, memory, gpus):
    finding, predicted, _ = vram(jobs / f"{name}.yaml", box(memory, gpus))
    assert finding.verdict == "ok" and predicted <= memory


def test_a_gpu_is_never_given_more_than_its_share_of_the_batch(jobs):
    assert [vram(jobs / "london_slm.yaml", box(80, gpus))[2] for gpus in (1, 2, 4)] == [36, 18, 9]


def test_preferences_train_the_adapter_they_go_on_with_and_hold_both_answers_of_a_pair(jobs):
    finding, predicted, micro = vram(jobs / "brie_preference.yaml", box(24))
    _, alone, _ = vram(jobs / "brie.yaml", box(24), "settings.batch.micro=5")
    assert micro == 5 and "optimizer" not in finding.said
    assert predicted > 1.5 * alone
    (jobs.parent / "adapters/brie/adapter_config.json").unlink()
    assert "not possible" in forecast(load(jobs / "brie_preference.yaml"), box(24))[0].said
