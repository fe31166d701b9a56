from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from remote_payload.recipes.classify import ClassifyTask, main
from remote_payload.train.errors import InputError, Stopped
from remote_payload.train.folders import read_manifest
from remote_payload.train.inference.target import load_target
from remote_payload.train.model.classifier import load_classifier
from remote_payload.train.results.classifier_smoke import predict_logits
from remote_payload.train.run import Run
from runner.workflow.comparing.record import TrainingRecord
from tests.support.models.classify_job import classify_settings, write_job, write_texts

Folders = Callable[[str], Path]


def classify(
    folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, resume: str | None = None
) -> Path:
    """Runs the recipe here as gpurun would launch it; returns the outputs."""
    write_job(folder, settings)
    places = {"GPURUN_RUN_DIR": folder, "GPURUN_OUTPUTS": folder / "outputs", "GPURUN_EVENTS": folder / "events.jsonl"}
    for name, value in {**places, "GPURUN_RUN_ID": "tiny-20260102-142030-c1a5"}.items():
        monkeypatch.setenv(name, str(value))
    if resume:
        monkeypatch.setenv("GPURUN_RESUME", resume)
    run = Run.from_environment("classify")
    main(run)
    run.telemetry.close()
    return folder / "outputs"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Folders) -> Path:
    """The run folder of a finished run on the EmbeddingGemma architecture, with the settings of the FineWeb-Legal report."""
    folder = tmp_path_factory.mktemp("legal")
    data = write_texts(folder / "batches" / "a.jsonl", 90)
    settings = classify_settings(
        tiny_folder("gemma3"), data.parent, labels=[0, 1, 2], class_weights="inverse_frequency", binary_threshold=1, epochs=4,
        lora={"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        classify(folder, settings, monkeypatch)
    return folder


def test_a_run_leaves_what_the_report_lists(finished: Path) -> None:
    best = finished / "outputs/models/best"
    names = {path.relative_to(best).as_posix() for path in best.rglob("*") if path.is_file()}
    assert {
        "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "metrics.json", "README.md", "gpurun.json",
        "tokenizer.json", "smoke/inputs.jsonl", "smoke/expected.safetensors", "smoke/about.json", "manifest.json",
    } <= names  # fmt: skip
    assert read_manifest(best, hashes=True) is not None
    metrics = json.loads((best / "metrics.json").read_text())
    assert set(metrics) == {
        "epoch", "step", "loss", "accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "binary_f1_1",
    }  # fmt: skip
    assert metrics["macro_f1"] > 0.8, "a constant guess reaches 0.17"
    assert list((finished / "outputs/logs/tiny-20260102-142030-c1a5").glob("events.out.tfevents*"))
    assert list((finished / "outputs/checkpoints").glob("step-*"))


def test_the_model_says_again_what_travels_with_it(finished: Path) -> None:
    best = finished / "outputs/models/best"
    model, tokenizer = load_classifier(best)
    texts = [json.loads(line)["text"] for line in (best / "smoke/inputs.jsonl").read_text().splitlines()]
    assert len(texts) == 6
    expected = load_file(best / "smoke/expected.safetensors")["logits"]
    assert torch.allclose(predict_logits(model, tokenizer, texts, 64), expected, atol=1e-5)
    assert json.loads((best / "smoke/about.json").read_text()) == {
        "dtype": "float32", "device": "cpu", "rows": 6, "labels": [0, 1, 2],
    }  # fmt: skip


def test_a_checkpoint_is_a_classifier_by_itself(finished: Path) -> None:
    """The step that the best model was saved at predicts what the best model does, from the checkpoint's own folder."""
    step = json.loads((finished / "outputs/models/best/metrics.json").read_text())["step"]
    found = [load_target(finished / "outputs" / each) for each in (f"checkpoints/step-{step:06d}", "models/best")]
    assert [each.labels for each in found] == [(0, 1, 2)] * 2 and [each.threshold for each in found] == [1, 1]
    ids = torch.tensor([found[0].tokenizer("the ship grants a licence to return")["input_ids"]])
    with torch.no_grad():
        first, second = (each.logits(ids, torch.ones_like(ids), False) for each in found)
    assert torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("encoder", ["bert"])
def test_a_checkpoint_of_a_whole_classifier_is_one_too(
    tmp_path: Path, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    data = write_texts(tmp_path / "a.jsonl", 30)
    settings = classify_settings(tiny_folder(encoder), data, lora={"rank": 0}, epochs=1)
    monkeypatch.chdir(tmp_path)
    outputs = classify(tmp_path, settings, monkeypatch)
    (step,) = sorted((outputs / "checkpoints").glob("step-*"))[-1:]
    first, second = load_target(step), load_target(outputs / "models/best")
    ids = torch.tensor([first.tokenizer("the ship")["input_ids"]])
    with torch.no_grad():
        mask = torch.ones_like(ids)
        assert torch.allclose(first.logits(ids, mask, False), second.logits(ids, mask, False), atol=1e-5)


def test_the_events_tell_the_run_from_its_first_phase_to_its_last_checkpoint(finished: Path) -> None:
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    assert [event["name"] for event in events if event["type"] == "phase"] == ["data", "model", "train", "results"]
    steps = [event for event in events if event["type"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, 37))
    expected = {
        "t",
        "type",
        "step",
        "total",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "mfu",
        "ms",
        "memory",
    }
    assert set(steps[0]) == expected
    assert steps[-1]["loss"] < steps[0]["loss"]
    evals = [event for event in events if event["type"] == "eval"]
    assert [event["step"] for event in evals] == [9, 18, 27, 36]
    assert {event["path"] for event in events if event["type"] == "checkpoint"} >= {"checkpoints/step-000036"}


def test_the_record_is_complete_and_names_nobody(finished: Path) -> None:
    text = (finished / "outputs/training_metadata.json").read_text()
    record = json.loads(text)
    assert set(record) >= {
        "schema", "run", "code", "job", "settings", "libraries", "hardware", "base_model", "data", "batch", "seeds", "phases",
        "memory", "training", "results", "artifacts",
    }  # fmt: skip
    assert record["data"][0]["rows"] == 90 and len(record["data"][0]["sha256"]) == 64
    assert record["data"][1] == {
        "side": "train",
        "rows": 72,
        "tokens": record["data"][1]["tokens"],
        "texts_cut": record["data"][1]["texts_cut"],
    }
    assert record["batch"] == {"effective": 8, "micro_requested": "auto", "micro_actual": 8, "devices": 1}
    assert record["memory"]["predicted"]["total"] > 0
    assert record["results"]["best"]["metrics"]["macro_f1"] > 0.8
    told = TrainingRecord(finished / "outputs")  # as gpurun compare reads it
    assert told.environment["torch"] == record["libraries"]["torch"] and told.environment["gpus"] == "none"
    assert told.course["tokens"] == record["training"]["tokens"]
    assert told.data_files and [file.content for file in told.data_files.values()] == [record["data"][0]["sha256"]]
    assert told.last_evaluation and told.last_evaluation.step == 36
    assert "models/best/head.safetensors" in {artifact["path"] for artifact in record["artifacts"]}
    assert str(finished) not in text
    assert socket.gethostname() not in text.replace("<host>", "")
    assert str(Path.home()) == "/" or str(Path.home()) not in text
    assert getpass.getuser() == "root" or getpass.getuser() not in text.replace(f"pytest-of-{getpass.getuser()}", "")


def test_the_card_has_the_hubs_header_and_the_runs_numbers(finished: Path) -> None:
    card = (finished / "outputs/models/best/README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    metrics = json.loads((finished / "outputs/models/best/metrics.json").read_text())
    values = {metric["type"]: metric["value"] for metric in header["model-index"][0]["results"][0]["metrics"]}
    assert values["macro_f1"] == metrics["macro_f1"]
    assert (header["library_name"], header["pipeline_tag"]) == ("peft", "text-classification")
    assert f"| macro_f1 | {metrics['macro_f1']:.4f} |" in card
    assert "ended: finished" in card, "the card was not written again at the end"
    assert "{{" not in card


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(finished / "outputs", tmp_path / "outputs")
    shutil.rmtree(tmp_path / "outputs/checkpoints/step-000036")
    shutil.copytree(finished / "batches", tmp_path / "batches")
    monkeypatch.chdir(tmp_path)
    settings = json.loads((finished / "job.json").read_text())["settings"]
    classify(tmp_path, settings, monkeypatch, resume="auto")
    weights = [load_file(f / "outputs/checkpoints/step-000036/model.safetensors") for f in (finished, tmp_path)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a label outside the classes": ({"labels": [0, 1]}, r"a\.jsonl:3: label 2 is not one of the classes 0, 1"),
    "a field that is not there": ({"text_field": "body"}, r"a\.jsonl:1: no field 'body'"),
    "an empty side": ({"validation_share": 0.001}, r"settings\.validation_share: .* empty split"),
    "data that is not there": ({"train": "nowhere"}, r"settings\.train: 'nowhere' matches no"),
    "a model that is not there": ({"model": "."}, r"settings\.model: \. is a folder without config\.json"),
    "a layer that is not there": ({"lora": {"rank": 4, "targets": ["q_proj", "query"]}}, r"settings\.lora\.targets: .* query"),
    "a threshold on words": ({"label_field": "kind", "binary_threshold": 1}, r"settings\.binary_threshold: the classes are not"),
    "a class without an example": (
        {"labels": [0, 1, 2, 3], "class_weights": "inverse_frequency"}, r"settings\.class_weights: .* no training example .* 3",
    ),
    "a misspelt setting": ({"max_lenght": 5}, r"settings\.max_lenght: no such setting; did you mean max_length\?"),
    "a metric that is not reported": ({"evaluation": {"metric": "f1"}}, r"settings\.evaluation\.metric: there is no f1; there are loss"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_its_place(
    case: str, tmp_path: Path, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    data = write_texts(tmp_path / "a.jsonl", 30)
    with pytest.raises(InputError, match=message):
        classify(tmp_path / "run", {**classify_settings(tiny_folder("gemma3"), data), **changes}, monkeypatch)


def test_data_of_one_class_is_refused(tmp_path: Path, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_texts(tmp_path / "a.jsonl", 30, classes=1)
    with pytest.raises(InputError, match=r"settings\.label_field: all of train has the one class 0"):
        classify(tmp_path / "run", classify_settings(tiny_folder("gemma3"), data), monkeypatch)


def test_a_text_longer_than_learned_positions_is_refused_before_training(
    tmp_path: Path, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_texts(tmp_path / "a.jsonl", 30)
    with pytest.raises(InputError, match=r"settings\.max_length: 600, but this encoder has 512 positions"):
        classify(tmp_path / "run", classify_settings(tiny_folder("bert"), data, max_length=600), monkeypatch)


def test_bad_input_is_one_line_on_stderr_and_exit_2(tmp_path: Path, tiny_folder: Folders) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text('{"text": "one", "label": 0}\n{"text": "two", "label": 1\n')
    write_job(tmp_path / "run", classify_settings(tiny_folder("gemma3"), data))
    environment = {
        **os.environ,
        "GPURUN_RUN_DIR": str(tmp_path / "run"),
        "GPURUN_RUN_ID": "tiny",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "remote_payload.recipes.classify"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {data}:2: not valid JSON")


def test_started_by_hand_a_job_file_is_enough(
    tmp_path: Path, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = classify_settings(tiny_folder("bert"), write_texts(tmp_path / "a.jsonl", 24), max_steps=2)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"name": "mine", "recipe": "classify", "settings": settings}))
    monkeypatch.chdir(tmp_path)
    run = Run.from_environment("classify", ["job.yaml"])
    main(run)
    run.telemetry.close()
    assert run.outputs.parent.parent == tmp_path / "gpurun-runs"
    assert (run.best / "gpurun.json").is_file()


def test_groups_stay_on_one_side_of_the_split(tmp_path: Path) -> None:
    from remote_payload.settings.classify import ClassifySettings
    from remote_payload.train.data.labelled import read_labelled_texts

    rows = [
        {"text": f"text {group} {index}", "label": index % 2, "document": group}
        for group in range(20)
        for index in range(5)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = read_labelled_texts(ClassifySettings(model="m", train=str(tmp_path / "a.jsonl"), group_field="document"))
    sides = [{example.text.split()[1] for example in side} for side in (data.train, data.validation)]
    assert (len(data.train), len(data.validation)) == (80, 20)
    assert not sides[0] & sides[1]


def test_a_run_that_is_stopped_leaves_record_model_and_card_that_say_so(
    tmp_path: Path, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_texts(tmp_path / "batches" / "a.jsonl", 60)
    settings = classify_settings(tiny_folder("gemma3"), data.parent, epochs=50, evaluation={"every_steps": 2})
    evaluate, asked = ClassifyTask.evaluate, []

    def stopping(task: ClassifyTask, model: Any, size: int) -> dict[str, float]:
        asked.append(task)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(task, model, size)

    monkeypatch.setattr(ClassifyTask, "evaluate", stopping)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped, match="stopped at step 6, checkpoint saved"):
        classify(tmp_path, settings, monkeypatch)
    record = json.loads((tmp_path / "outputs/training_metadata.json").read_text())
    assert record["run"]["ended"] == "stopped" and record["training"]["steps"] == 6
    best = tmp_path / "outputs/models/best"
    about, metrics = (json.loads((best / name).read_text()) for name in ("gpurun.json", "metrics.json"))
    assert about["step"] == metrics["step"] == record["results"]["best"]["step"] in (2, 4)
    sentence = f"Training was stopped at step 6 of {record['training']['steps_planned']}."
    assert about["note"] == sentence and sentence in (best / "README.md").read_text()
    assert read_manifest(best, hashes=True) is not None and (best / "smoke/expected.safetensors").is_file()
