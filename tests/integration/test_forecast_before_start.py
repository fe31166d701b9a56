"""A run that does not fit the box by its forecast is refused before anything is sent: over SSH, with the model's config.json from a hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun
from tests.support.hub import Hub

QWEN = {
    "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


@pytest.fixture
def job(tmp_path: Path, gpurun: Gpurun, hub: Hub) -> Path:
    """All weights of a model of half a billion parameters, which take about 10 GiB."""
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint}
    hub.add_model(MODEL, {"config.json": json.dumps(QWEN).encode()})
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    body = {
        "name": "talk", "recipe": "sft", "data": ["train.jsonl"], "resources": {"gpus": 1},
        "settings": {"model": MODEL, "train": "train.jsonl", "prompt_template": "{prompt}", "lora": {"rank": 0}, "batch": {"size": 4}},
    }  # fmt: skip
    (tmp_path / "project" / "job.yaml").write_text(json.dumps(body))
    return tmp_path / "project" / "job.yaml"


def with_gpus(box: Box, folder: Path, *memory: int) -> None:
    """Makes the box look as if it had GPUs of so many GiB."""
    seen = [
        {"number": number, "uuid": f"GPU-{number}", "name": "RTX", "memory_total": size << 30, "memory_used": 0, "utilisation": 0}
        for number, size in enumerate(memory)
    ]  # fmt: skip
    (folder / "gpus.json").write_text(json.dumps(seen))
    box.configure(GPURUN_FAKE_GPUS=str(folder / "gpus.json"))


@pytest.mark.stand_in
def test_a_run_that_does_not_fit_is_refused_with_parts_card_and_ways_out(
    gpurun: Gpurun, box: Box, job: Path, hub: Hub, tmp_path: Path
) -> None:
    with_gpus(box, tmp_path, 6)
    checked = gpurun.json("check", str(job), "--host", box.address(), check=3)
    (told,) = checked["forecasts"]
    assert told["vram"] == sum(told["vram_parts"].values()) > 1.1 * told["vram_there"] and told["error"] == 0.1
    assert told["vram_there"] == 6 << 30 and told["micro_batch"] == 1 and told["runs_at_once"] == 1
    assert told["ram_there"] >= told["ram_free"] > 0 and told["ram"] > told["ram_parts"]["checkpoint"] > 5 << 30

    refused = gpurun("submit", str(job), "--host", box.address(), check=3)
    said = " ".join(refused.stderr.split())
    for part in (
        "optimizer 3.7",
        "weights 2.8",
        "GPU 0, RTX, has 6 GiB",
        "settings.lora.rank: 16",
        "--despite-forecast",
    ):
        assert part in said, said
    assert "Nothing was pushed or started" in said and not list(box.root.glob("data/*"))
    assert "not started (box)" in gpurun("status").stdout
    assert len(hub.downloads("config.json")) == 1  # the second answer came from the cache

    anyway = gpurun.json("submit", str(job), "--host", box.address(), "--dry-run", "--despite-forecast")
    verdicts = {each["what"]: each["verdict"] for each in anyway["jobs"][0]["findings"]}
    assert anyway["ready"] and verdicts["VRAM forecast"] == "warn"


@pytest.mark.stand_in
def test_a_sweep_of_which_one_run_does_not_fit_starts_none(gpurun: Gpurun, box: Box, job: Path, tmp_path: Path) -> None:
    with_gpus(box, tmp_path, 12, 12)
    sweep = '{"settings.max_length": [128, 65536], "settings.seed": [0, 1]}'
    refused = gpurun("submit", str(job), "--host", box.address(), "--set", f"sweep={sweep}", check=3)
    said = " ".join(refused.stderr.split())
    assert said.count("VRAM forecast of talk-max-length-128-seed-0") == 1  # told, once for both seeds
    assert "VRAM forecast of talk-max-length-65536-seed-0" in said and "-seed-1: " not in said
    assert not list(box.root.glob("runs/*")) and not list(box.root.glob("data/*"))
