"""The recipe as gpurun starts it, with the settings of the job files; only model and data are small."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from remote_payload.train.folders import read_manifest
from remote_payload.train.model.causal_files import load_causal
from remote_payload.train.results import causal_results
from remote_payload.train.signals import Requests
from remote_payload.train.state import grace
from remote_payload.train.state.checkpoint import checkpoints_in
from remote_payload.train.state.grace import Clock
from remote_payload.train.tasks.packed_task import PackedTask
from tests.support.models.language_data import (
    conversations,
    extractions,
    job_settings,
    run_recipe,
    run_recipe_here,
    write_lines,
)
from tests.support.models.tiny_models import save_tiny_model


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


@pytest.fixture(scope="module")
def brie(tmp_path_factory, tiny_folder) -> Path:
    root = tmp_path_factory.mktemp("brie")
    data = write_lines(root / "data" / "chat.jsonl", conversations(60))
    short = {"epochs": 1, "generation": {"examples": 4, "max_new_tokens": 24, "temperature": 0.75, "top_p": 0.9}}
    done = run_recipe(
        "sft", root / "run", job_settings("brie", model=str(tiny_folder("qwen2")), train=str(data), **short)
    )
    assert done.returncode == 0, done.stderr
    return root / "run"


def test_brie_leaves_an_adapter_with_template_figures_and_predictions_that_can_be_loaded(brie):
    best = brie / "outputs" / "models" / "best"
    files = {path.relative_to(best).as_posix() for path in best.rglob("*") if path.is_file()}
    assert {
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json", "gpurun.json",
        "metrics.json", "manifest.json", "smoke/inputs.jsonl", "smoke/expected.safetensors", "smoke/about.json",
    } <= files  # fmt: skip
    network, tokenizer = load_causal(best)
    assert tokenizer.chat_template and network.peft_config["default"].r == 8
    assert {"loss", "perplexity", "token_accuracy", "step"} <= set(json.loads((best / "metrics.json").read_text()))


def test_brie_reports_base_and_tuned_side_by_side(brie):
    reports = brie / "outputs" / "reports"
    figures = json.loads((reports / "evaluation.json").read_text())
    assert figures["held_out"]["tuned"]["loss"] < figures["held_out"]["base"]["loss"]
    for name in ("tuned", "base"):
        scores = figures["generation"][name]
        assert {"bleu", "rougeL", "ended_share", "length", "vocabulary"} <= set(scores)
    assert figures["generation"]["tuned"]["latency"]["prompts"] == 4
    rows = [json.loads(line) for line in (reports / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all({"prompt", "expected", "tuned", "base"} == set(row) for row in rows)
    assert "**tuned**" in (reports / "samples.md").read_text()


def test_brie_has_a_finished_card_and_a_record_with_numbers_from_the_run(brie):
    card = (brie / "outputs" / "models" / "best" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert (header["pipeline_tag"], header["library_name"]) == ("text-generation", "peft")
    figures = json.loads((brie / "outputs" / "reports" / "evaluation.json").read_text())["held_out"]
    assert f"| loss | {figures['tuned']['loss']:.4f} | {figures['base']['loss']:.4f} |" in card
    assert "## Samples" in card and "apply_chat_template" in card and "…\n" not in card.split("## Results")[1]
    record = json.loads((brie / "outputs" / "training_metadata.json").read_text())
    sides = {entry["side"]: entry for entry in record["data"] if "side" in entry}
    assert sides["train"]["examples"] == 54 and sides["train"]["learnt_tokens"] > 0 and sides["train"]["truncated"] == 0
    assert record["data"][0]["rows"] == 60 and len(record["data"][0]["sha256"]) == 64
    assert record["results"]["tuned"]["loss"] == figures["tuned"]["loss"]
    assert record["memory"]["predicted"]["total"] > 0
    assert record["parameters"]["trained"] < record["parameters"]["total"]


def test_brie_says_what_happens_in_events(brie):
    steps = events(brie, "step")
    assert [step["step"] for step in steps] == list(range(1, 12)) and steps[-1]["total"] == 11
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert [event["name"] for event in events(brie, "phase")] == ["data", "model", "train", "report"]
    assert events(brie, "eval")[-1]["metrics"]["perplexity"] > 1


def test_a_run_goes_on_from_a_checkpoint_with_evaluation_on_or_off_as_if_it_had_not_stopped(tmp_path, tiny_folder):
    data = write_lines(tmp_path / "chat.jsonl", conversations(40))
    settings = {
        "model": str(tiny_folder("qwen2")), "train": str(data), "validation_share": 0.1, "max_length": 64,
        "lora": {"rank": 4, "dropout": 0.1}, "batch": {"size": 6}, "epochs": 2, "generation": {"examples": 0},
        "checkpoint": {"every_steps": 5, "keep": None}, "evaluation": {"every_steps": 5},
    }  # fmt: skip
    assert run_recipe_here("sft", tmp_path / "whole", settings) == 0
    for name, evaluation in (("with", {"every_steps": 5}), ("without", {"every_steps": None, "every_epochs": None})):
        checkpoint = tmp_path / "whole" / "outputs" / "checkpoints" / "step-000005"
        changed = {**settings, "evaluation": evaluation}
        assert run_recipe_here("sft", tmp_path / name, changed, resume=str(checkpoint)) == 0
        steps = {step["step"]: step["loss"] for step in events(tmp_path / "whole", "step")}
        again = {step["step"]: step["loss"] for step in events(tmp_path / name, "step")}
        assert again == {step: loss for step, loss in steps.items() if step > 5}
        assert len(events(tmp_path / name, "eval")) == (2 if name == "with" else 1)


def test_edgejson_measures_mixed_json_by_what_the_model_writes(tmp_path, tiny_folder):
    train = write_lines(tmp_path / "train.jsonl", extractions(63))
    test = write_lines(tmp_path / "test.jsonl", extractions(5, seed=1))
    changes = {"model": str(tiny_folder("llama")), "train": str(train), "test": str(test)}
    settings = job_settings("edgejson", **changes, generation={"examples": None, "max_new_tokens": 64})
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    figures = json.loads((tmp_path / "run" / "outputs" / "reports" / "evaluation.json").read_text())["generation"]
    assert figures["examples"] == 5
    for name in ("tuned", "base"):
        assert {"json_exact", "field_f1", "schema_compliance", "json_parses"} <= set(figures[name])
    assert [step["total"] for step in events(tmp_path / "run", "step")] == [6] * 6
    best = tmp_path / "run" / "outputs" / "models" / "best"
    config = json.loads((best / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == 7
    assert checkpoints_in(tmp_path / "run" / "outputs" / "checkpoints")


def test_a_whole_model_is_trained_and_compared_with_its_base_when_the_rank_is_zero(tmp_path, tiny_folder):
    data = write_lines(tmp_path / "chat.jsonl", conversations(30))
    settings = {
        "model": str(tiny_folder("olmo2")), "train": str(data), "lora": {"rank": 0}, "max_length": 96, "epochs": 4,
        "optimizer": {"learning_rate": 0.003}, "batch": {"size": 8},
        "generation": {"examples": 2, "max_new_tokens": 8, "latency_examples": 0},
    }  # fmt: skip
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    figures = json.loads((tmp_path / "run" / "outputs" / "reports" / "evaluation.json").read_text())["held_out"]
    assert figures["tuned"]["loss"] < figures["base"]["loss"] - 0.5
    assert (tmp_path / "run" / "outputs" / "models" / "best" / "model.safetensors").is_file()


GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
TEMPLATE = {"prompt_template": "{prompt}", "completion_field": "out"}


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        ([GOOD, '{"messages": '], {}, "chat.jsonl:2: not valid JSON"),
        ([GOOD, {"messages": []}], {}, "chat.jsonl:2: messages: no message of the assistant"),
        ([GOOD, {"text": "x"}], {}, "chat.jsonl:2: no field 'messages' (the record has text)"),
        ([GOOD], TEMPLATE, "chat.jsonl:1: no field 'prompt' (the record has messages)"),
        ([], {}, "settings.train: '{data}' holds no examples"),
        ([GOOD], {}, "settings.validation_share: 0.1 of 1 examples leaves an empty split"),
        ([GOOD] * 20, {"epoch": 3}, "settings.epoch: no such setting; did you mean epochs?"),
        ([GOOD] * 20, {"evaluation": {"metric": "f1"}}, "settings.evaluation.metric: there is no f1; there are loss"),
        (
            [GOOD] * 20,
            {"evaluation": {"metric": "token_accuracy", "higher_is_better": False}},
            "settings.evaluation.higher_is_better: no such setting any more; delete it: the recipe knows which way each metric",
        ),
        ([GOOD] * 20, {"schema": "x.json"}, "settings.json_extraction: a schema is given"),
        (
            [{"prompt": "a", "out": 1, "schema": {"type": "objekt"}}] * 20,
            {**TEMPLATE, "json_extraction": True, "schema_field": "schema"},
            "schema: not a JSON Schema: at type: 'objekt'",
        ),
        (
            [GOOD] * 20,
            {"lora": {"targets": ["qq_proj"]}},
            "settings.lora.targets: the model has no linear layer qq_proj",
        ),
        ([GOOD] * 20, {"model": "BARE"}, "settings.pad_token: the tokenizer of {model} has no padding token; name one"),
        (
            [GOOD] * 20,
            {"model": "BARE", "pad_token": "<|endoftext|>"},
            "settings.chat_template: the tokenizer of {model} has no chat template",
        ),
        ([GOOD] * 20, {"max_length": 8}, "settings.max_length: 8 tokens leave nothing to learn of any example"),
        ([GOOD] * 20, {"model": "nowhere/at-all"}, "settings.model: nowhere/at-all"),
    ],
)
def test_bad_input_is_one_line_that_names_its_place_and_exit_code_2(
    tmp_path, tiny_folder, capsys, lines, settings, message
):
    data = tmp_path / "chat.jsonl"
    data.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    chosen = {"model": str(tiny_folder("qwen2")), "train": str(data), **settings}
    if chosen["model"] == "BARE":
        chosen["model"] = str(save_tiny_model("llama", tmp_path / "bare", chat=False, pad=False))
    assert run_recipe_here("sft", tmp_path / "run", chosen) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert message.replace("{data}", str(data)).replace("{model}", chosen["model"]) in line


def test_a_stop_during_the_report_leaves_record_and_model_and_the_resumed_run_reports(
    tmp_path, tiny_folder, monkeypatch
):
    data = write_lines(tmp_path / "chat.jsonl", conversations(20))
    asking, ask = {"examples": 2, "max_new_tokens": 4, "latency_examples": 0}, causal_results.ask
    settings = {
        "model": str(tiny_folder("qwen2")), "train": str(data), "max_length": 64, "epochs": 1, "generation": asking,
    }  # fmt: skip

    def stopped(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return ask(*arguments)

    monkeypatch.setattr(causal_results, "ask", stopped)
    assert run_recipe_here("sft", tmp_path / "run", settings) == 128 + signal.SIGTERM
    outputs = tmp_path / "run" / "outputs"
    record = json.loads((outputs / "training_metadata.json").read_text())
    assert record["run"]["ended"] == "finished" and record["results"]["model"]["step"] == 1
    assert read_manifest(outputs / "models" / "best", hashes=True) and not (outputs / "reports").exists()
    assert (outputs / "models" / "best" / "smoke" / "expected.safetensors").is_file()

    monkeypatch.setattr(causal_results, "ask", ask)
    assert run_recipe_here("sft", tmp_path / "run", settings, resume="auto") == 0
    assert len(events(tmp_path / "run", "step")) == 1 and (outputs / "reports" / "evaluation.json").is_file()


@pytest.mark.parametrize("time_for_all", [True, False])
def test_a_run_that_is_stopped_reports_what_there_is_time_for(tmp_path, tiny_folder, monkeypatch, time_for_all):
    data = write_lines(tmp_path / "chat.jsonl", conversations(20))
    settings = {
        "model": str(tiny_folder("qwen2")), "train": str(data), "max_length": 64, "epochs": 9, "batch": {"size": 8},
        "evaluation": {"every_steps": 1}, "generation": {"examples": 2, "max_new_tokens": 4, "latency_examples": 0},
    }  # fmt: skip
    share, ask, asked = PackedTask.micro_batches, causal_results.ask, []
    taken: list[Any] = []

    def stopped(task: PackedTask, step: Any, rows: int) -> Any:
        taken.append(step)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return share(task, step, rows)

    def slow(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 2 and not time_for_all:  # the base's answers
            threading.Event().wait()
        return ask(*arguments)

    monkeypatch.setattr(PackedTask, "micro_batches", stopped)
    monkeypatch.setattr(causal_results, "ask", slow)
    if not time_for_all:
        monkeypatch.setattr(grace, "LEAST", grace.SPARE + 6)
        monkeypatch.setattr(grace.Grace, "tell", lambda *arguments: None)
        monkeypatch.setattr(Requests, "clock", lambda requests: Clock(time.monotonic() + grace.LEAST))
    assert run_recipe_here("sft", tmp_path / "run", settings) == 128 + signal.SIGTERM
    outputs = tmp_path / "run" / "outputs"
    report, record = (
        json.loads((outputs / name).read_text()) for name in ("reports/evaluation.json", "training_metadata.json")
    )
    told = {"tuned", "base"} if time_for_all else {"tuned"}
    assert set(report["held_out"]) == told == set(report["generation"]) - {"settings", "examples"}
    assert record["run"]["ended"] == "stopped" and record["training"]["steps"] == 2
    assert ("base" in record["results"]) == time_for_all
    assert (outputs / "models" / "best" / "smoke" / "expected.safetensors").is_file()
    assert record["training"]["epochs"][-1]["step"] == 2


def test_the_model_is_chosen_by_what_it_writes_where_the_job_asks_for_that(tmp_path, tiny_folder):
    """Its figures are those of the report, which asks the same prompts again at the end."""
    rows = [{"prompt": f"n{number}", "out": {"n": 1, "m": number % 2}} for number in range(30)]
    settings = {
        "model": str(tiny_folder("qwen2")), "train": str(write_lines(tmp_path / "rows.jsonl", rows)), **TEMPLATE,
        "json_extraction": True, "max_length": 64, "epochs": 6, "optimizer": {"learning_rate": 0.02}, "lora": {"rank": 0},
        "evaluation": {"metric": "field_f1"}, "batch": {"size": 4},
        "generation": {"examples": 5, "max_new_tokens": 12, "latency_examples": 0, "base": False},
    }  # fmt: skip
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    outputs = tmp_path / "run" / "outputs"
    record = json.loads((outputs / "training_metadata.json").read_text())
    scores = [entry["metrics"]["field_f1"] for entry in record["training"]["evaluations"]]
    assert len(scores) == 6 and len(set(scores)) > 1, "a metric that does not move chooses nothing"
    assert record["results"]["best"]["metrics"]["field_f1"] == max(scores)
    assert record["results"]["tuned"]["generation/field_f1"] == max(scores)
    card = (outputs / "models/best/README.md").read_text()
    assert "| generation/length/mean |" in card and "| generation/vocabulary/distinct_words |" in card


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"evaluation": {"metric": "json_exact"}},
            "settings.evaluation.metric: json_exact needs json_extraction: true",
        ),
        (
            {"evaluation": {"metric": "rougeL"}, "generation": {"examples": 0}},
            "settings.evaluation.metric: rougeL is of generated answers, and settings.generation.examples is 0",
        ),
        (
            {**TEMPLATE, "json_extraction": True, "evaluation": {"metric": "schema_compliance"}},
            "settings.evaluation.metric: schema_compliance needs schema or schema_field",
        ),
    ],
)
def test_a_metric_of_answers_that_are_not_measured_is_refused_before_training(
    tmp_path, tiny_folder, capsys, changes, said
):
    data = write_lines(tmp_path / "chat.jsonl", conversations(20))
    settings = {"model": str(tiny_folder("qwen2")), "train": str(data), **changes}
    assert run_recipe_here("sft", tmp_path / "run", settings) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_stops_itself_early_leaves_all_that_another_does(tmp_path, tiny_folder):
    settings = {
        "model": str(tiny_folder("qwen2")), "train": str(write_lines(tmp_path / "chat.jsonl", conversations(20))), "max_length": 64,
        "epochs": 9, "optimizer": {"learning_rate": 1e-30}, "evaluation": {"every_steps": 1, "patience": 1},
        "generation": {"examples": 2, "max_new_tokens": 4, "latency_examples": 1},
    }  # fmt: skip
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    outputs = tmp_path / "run" / "outputs"
    record, report = (
        json.loads((outputs / name).read_text()) for name in ("training_metadata.json", "reports/evaluation.json")
    )
    assert record["run"]["ended"] == "early stopping" and record["training"]["steps"] == 2
    assert set(report["held_out"]) == {"tuned", "base"} <= set(record["results"])
    best = outputs / "models" / "best"
    assert (best / "smoke" / "expected.safetensors").is_file()
    assert "ended: early stopping" in (best / "README.md").read_text()
    assert [epoch["step"] for epoch in record["training"]["epochs"]] == [1, 2]
