"""The card: what the Hub reads in it, and that nothing in it names this machine. Its Python is run in test_card_snippets.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from remote_payload.train.download import BaseModel, base_source
from remote_payload.train.errors import InputError
from remote_payload.train.files import sha256_of
from remote_payload.train.model.causal_files import load_causal
from remote_payload.train.results.card import Card, base_line, hub_metadata, render_card
from remote_payload.train.run import Run
from remote_payload.train.state.progress import EvaluationResult
from tests.support.models.language_data import conversations, run_recipe_here, write_lines
from tests.support.models.tiny_models import save_tiny_model
from tests.support.models.toy_training import toy_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """An adapter on a local base, trained with absolute paths as by hand."""
    root = tmp_path_factory.mktemp("card")
    base = save_tiny_model("qwen2", root / "kept" / "models" / "qwen")
    data = write_lines(root / "kept" / "data" / "chat.jsonl", conversations(20))
    settings = {
        "model": str(base), "train": str(data), "max_length": 64, "epochs": 1,
        "generation": {"examples": 1, "max_new_tokens": 4, "latency_examples": 0},
    }  # fmt: skip
    assert run_recipe_here("sft", root / "run", settings) == 0
    return root


def test_no_path_of_this_machine_is_in_the_card_or_the_adapter(trained):
    best = trained / "run" / "outputs" / "models" / "best"
    card = (best / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert str(trained) not in card and "`chat.jsonl`: 20 rows" in card and 'BASE = "./qwen"' in card
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == "chat.jsonl"
    assert "base_model" not in header and "base_model_relation" not in header
    assert json.loads((best / "adapter_config.json").read_text())["base_model_name_or_path"] == "./qwen"


def test_a_local_base_is_named_by_what_it_is(trained):
    card = (trained / "run" / "outputs" / "models" / "best" / "README.md").read_text()
    digest = sha256_of(trained / "kept" / "models" / "qwen" / "model.safetensors")
    assert f"| base model | `qwen2` in the folder `./qwen`, model.safetensors has the sha256 `{digest}` |" in card


def test_a_base_that_gpurun_trained_says_by_which_recipe_and_one_of_the_hub_its_commit(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "gpurun.json").write_text('{"format": 1, "kind": "causal_lm", "recipe": "pretrain"}')
    own = base_line(BaseModel("models/best", str(tmp_path)))
    assert own == "`gpt2` in the folder `./models/best`, trained by gpurun's recipe `pretrain`"
    assert base_line(BaseModel("acme/qwen", "/cache", revision="abc")) == "`acme/qwen` at commit `abc`"


def test_test_data_is_listed_only_where_there_was_some(trained, tmp_path):
    card = (trained / "run" / "outputs" / "models" / "best" / "README.md").read_text()
    assert "- validation: " in card and "- test: " not in card
    record = json.loads((trained / "run" / "outputs" / "training_metadata.json").read_text())
    assert [entry["side"] for entry in record["data"] if "side" in entry] == ["train", "validation"]


def test_a_base_that_was_a_folder_is_never_looked_up_by_name(trained, tmp_path, monkeypatch):
    best = trained / "run" / "outputs" / "models" / "best"
    about = json.loads((best / "gpurun.json").read_text())
    about["base"] |= {"id": "acme/qwen", "path": "acme/qwen"}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"acme/qwen was a folder of the job and is not here; .*base_path"):
        base_source(about["base"], None)
    assert base_source({"id": "acme/qwen", "path": None, "revision": "abc"}, None) == ("acme/qwen", "abc")
    assert load_causal(best, trained / "kept" / "models" / "qwen")[0] is not None


def a_card(**fields: Any) -> Card:
    evaluation: EvaluationResult = {"step": 1, "epoch": 1.0, "seconds": 0.1, "metrics": {"loss": 0.5}}
    given = {
        "title": "a", "summary": "b", "usage": "c", "metadata": ModelCardData(license="mit"), "metric": "loss",
        "higher_is_better": False, "best": evaluation, "history": [evaluation], "data": ["d"], "training": {"e": 1},
    }  # fmt: skip
    return Card(**{**given, **fields})


def run_on_data(folder: Path) -> Run:
    run = toy_run(folder)
    run.settings = SimpleNamespace(train="data/chat.jsonl")
    return run


def test_the_hub_reads_licence_base_and_metrics_from_the_header(tmp_path):
    """Names are written so that they stay names: YAML would take a bare `no` or `1.0: x` for something else."""
    run = run_on_data(tmp_path)
    run.job["name"] = "no: 1.0"
    base = BaseModel("acme/qwen", "/cache/x", revision="abc", licence="apache-2.0")
    metadata = hub_metadata(
        run,
        base,
        "text-generation",
        adapter=True,
        tags=["sft", "gpurun"],
        metrics={"loss": 1e-5, "generation/bleu": 41.5},
    )
    read = ModelCard(render_card(a_card(metadata=metadata))).data
    assert (read.license, read.base_model, read["base_model_relation"]) == ("apache-2.0", "acme/qwen", "adapter")
    assert (read.library_name, read.pipeline_tag, read.tags) == ("peft", "text-generation", ["gpurun", "sft"])
    assert read.model_name == "no: 1.0"
    found = {each.metric_type: (each.metric_value, each.task_type, each.dataset_type) for each in read.eval_results}
    assert found == {
        "loss": (1e-5, "text-generation", "custom"),
        "generation/bleu": (41.5, "text-generation", "custom"),
    }


def test_a_model_without_a_base_on_the_hub_names_none(tmp_path):
    folder = BaseModel("models/qwen", "models/qwen", licence=None)
    for base in (None, folder):
        read = hub_metadata(
            run_on_data(tmp_path), base, "text-generation", adapter=False, tags=[], metrics={"loss": 1.0}
        )
        assert (read.to_dict()["license"], read.library_name) == ("other", "transformers")
        assert "base_model" not in read.to_dict() and "base_model_relation" not in read.to_dict()


def test_every_evaluation_has_its_figures_under_their_names_whatever_a_resumed_run_measures():
    """binary_threshold or the evaluation sets may be others after a resume, so evaluations differ in what they hold."""
    history = [
        {"step": 1, "epoch": 1.0, "metrics": {"loss": 0.5, "binary_f1_2": 0.25}},
        {"step": 2, "epoch": 2.0, "metrics": {"loss": 0.4, "accuracy": 1.0, "binary_f1_3": 0.75}},
    ]
    card = render_card(a_card(best=history[1], history=history))
    table = card.split("| step | epoch |")[1].split("\n\n")[0].splitlines()
    assert table[0].split(" | ")[0:4] == [" loss", "binary_f1_2", "accuracy", "binary_f1_3 |"]
    assert table[2:] == ["| 1 | 1.0 | 0.5000 | 0.2500 |  |  |", "| 2 | 2.0 | 0.4000 |  | 1.0000 | 0.7500 |"]
