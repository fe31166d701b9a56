"""``gpurun predict --host``: the same file as on this machine, by a run on the box, of every kind of target; typed again it goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from tests.support.agent import wait_until
from tests.support.cli import Gpurun
from tests.support.document_types import TYPES, differences
from tests.support.hub import Hub
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.smoke_models import classifier_run
from tests.support.models.tiny_models import CORPUS, save_tiny_model, tiny_tokenizer

WINDOW = 2048  # rows that are predicted together


def write(file: Path, texts: list[str]) -> Path:
    file.write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts))
    return file


def rows(file: Path) -> list[dict[str, Any]]:
    """Without the input's name, which is another one on the box."""
    return [{**json.loads(line), "file": ""} for line in file.read_text().splitlines()]


def started(gpurun: Gpurun) -> list[Any]:
    return [run for run in gpurun.json("list")["runs"] if run["job_name"].startswith("predict-")]


def test_a_folder_predicts_on_a_box_what_it_predicts_here(gpurun: Gpurun, tmp_path: Path) -> None:
    folder = classifier_run(tmp_path, "bert", rank=0)
    write(tmp_path / "texts.jsonl", [*CORPUS] * 5)
    words = ["predict", str(folder), "--input", "texts.jsonl", "--device", "cpu", "--keep", "n"]
    here = gpurun.json(*words, "--output", "here.jsonl", cwd=tmp_path)
    there = gpurun.json(*words, "--output", "there.jsonl", "--host", "local", cwd=tmp_path)
    assert differences(there, TYPES["Predict"], set()) == []
    assert {**there, "output": 0, "seconds": 0, "peak_memory": 0, "target": 0} == {
        **here, "output": 0, "seconds": 0, "peak_memory": 0, "target": 0,
    }  # fmt: skip
    assert rows(tmp_path / "here.jsonl") == rows(tmp_path / "there.jsonl")
    (listed,) = started(gpurun)
    assert listed["job_name"] == "predict-there" and listed["status"]["outcome"] == "succeeded"
    # The output is gone here, and what made it is not: nothing is predicted again.
    (tmp_path / "there.jsonl").unlink()
    gpurun(*words, "--output", "there.jsonl", "--host", "local", cwd=tmp_path)
    assert rows(tmp_path / "here.jsonl") == rows(tmp_path / "there.jsonl") and len(started(gpurun)) == 1


def test_typed_again_it_goes_on_after_the_windows_that_are_done(gpurun: Gpurun, tmp_path: Path) -> None:
    """A bad row in the last of three windows ends the first attempt; the second marks it, and predicts that window alone."""
    folder = classifier_run(tmp_path, "bert", rank=0)
    texts = write(tmp_path / "texts.jsonl", ["ship"] * (2 * WINDOW))
    with texts.open("a") as file:
        file.write('{"other": 1}\n' + json.dumps({"text": "licence"}) + "\n")
    words = [
        "predict",
        str(folder),
        "--input",
        "texts.jsonl",
        "--device",
        "cpu",
        "--output",
        "out.jsonl",
        "--host",
        "local",
    ]
    failed = gpurun(*words, cwd=tmp_path, check=10)
    assert f"texts.jsonl:{2 * WINDOW + 1}" in failed.stdout + failed.stderr and not (tmp_path / "out.jsonl").exists()
    done = gpurun.json(*words, "--bad-rows", "mark", cwd=tmp_path)
    assert (done["rows"], done["bad"], done["predicted"]) == (2 * WINDOW + 2, 1, 2)
    found = rows(tmp_path / "out.jsonl")
    assert [row["line"] for row in found] == list(range(1, 2 * WINDOW + 3)) and "error" in found[-2]
    assert len({row["prediction"] for row in found[: 2 * WINDOW]}) == 1
    first, second = sorted(started(gpurun), key=lambda run: str(run["created_at"]))
    assert second["status"]["outcome"] == "succeeded" and first["status"]["outcome"] != "succeeded"


@pytest.mark.slow
def test_a_command_that_was_killed_finds_its_run_again(gpurun: Gpurun, tmp_path: Path) -> None:
    folder = classifier_run(tmp_path, "bert", rank=0)
    texts = write(tmp_path / "texts.jsonl", [*CORPUS] * 5)
    words = [
        "predict",
        str(folder),
        "--input",
        str(texts),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "out.jsonl"),
        "--host",
        "local",
    ]
    with gpurun.start(*words) as killed:
        wait_until(lambda: [run for run in started(gpurun) if run["launched"]], limit=200, every=0.5)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    done = gpurun.json(*words)
    assert done["rows"] == len(rows(tmp_path / "out.jsonl")) == 5 * len(CORPUS) and len(started(gpurun)) == 1


@pytest.mark.slow
def test_a_run_its_checkpoint_and_a_revision_of_the_hub_predict_there_what_they_predict_here(
    gpurun: Gpurun, hub: Hub, tmp_path: Path
) -> None:
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint}
    save_tiny_model("bert", tmp_path / "base")
    settings = classify_settings(Path("base"), write_texts(tmp_path / "data.jsonl", 32).relative_to(tmp_path), epochs=2)
    job = {
        "name": "legal",
        "recipe": "classify",
        "data": ["base", "data.jsonl"],
        "settings": settings,
        "resources": {"gpus": 0},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    gpurun("submit", "job.yaml", "--host", "local", cwd=tmp_path)
    gpurun("logs", "-f", timeout=280)
    gpurun("fetch")
    for seed, tag in enumerate(("v1", "")):
        torch.manual_seed(seed)
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = BertConfig(vocab_size=384, pad_token_id=1, max_position_embeddings=64, **shape)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / f"hub{seed}")
        tiny_tokenizer().save_pretrained(tmp_path / f"hub{seed}")
        hub.add_model("acme/classifier", tmp_path / f"hub{seed}", tag=tag)
    write(tmp_path / "texts.jsonl", [*CORPUS])
    found = []
    for number, target in enumerate(("legal", "legal:step-000004", "acme/classifier@v1", "acme/classifier")):
        words = ["predict", target, "--input", "texts.jsonl", "--device", "cpu"]
        gpurun(*words, "--output", f"here{number}.jsonl", cwd=tmp_path)
        gpurun(*words, "--output", f"there{number}.jsonl", "--host", "local", cwd=tmp_path)
        here, there = (rows(tmp_path / f"{place}{number}.jsonl") for place in ("here", "there"))
        assert [row["prediction"] for row in here] == [row["prediction"] for row in there]
        for one, other in zip(here, there, strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        found.append([row["probability"] for row in here])
    assert found[0] != found[1] and found[2] != found[3]
    words = ["--input", "texts.jsonl", "--output", "x.jsonl", "--device", "cpu", "--host", "local"]
    assert "v9" in gpurun("predict", "acme/classifier@v9", *words, cwd=tmp_path, check=3).stderr


@pytest.mark.slow
def test_a_revision_of_the_hub_is_measured_on_a_box_as_here(gpurun: Gpurun, hub: Hub, tmp_path: Path) -> None:
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint}
    for seed, tag in enumerate(("v1", "")):
        hub.add_model("acme/lm", save_tiny_model("qwen2", tmp_path / f"lm{seed}", seed=seed), tag=tag)
    asked = [{"prompt": text[:12], "completion": text[12:]} for text in CORPUS]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = [
        "--data",
        "asked.jsonl",
        "--device",
        "cpu",
        "--grid",
        "max_new_tokens=4",
        "--set",
        "answer_field=completion",
    ]
    found = [
        gpurun.json("evaluate", target, *words, *more, "--output", f"found{number}", cwd=tmp_path)["columns"][0][
            "metrics"
        ]["loss"]
        for number, (target, more) in enumerate(
            (("acme/lm@v1", ["--host", "local"]), ("acme/lm@v1", []), ("acme/lm", []))
        )
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5) != found[2]
