"""The evaluation of models that exist, here called without its process."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from remote_payload.recipes.evaluate import evaluate
from remote_payload.recipes.evaluated import SUMMARY, Column, Evaluation
from remote_payload.settings.evaluate import Asking, EvaluateSettings, ModelToMeasure
from remote_payload.train.data.structured import Example
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.evaluation_sets import EvaluationSets, encode, overall
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.causal_files import load_network, load_tokenizer
from tests.support.models.edge_json import TEMPLATE, adapter_and_base, asked
from tests.support.models.language_data import write_lines
from tests.support.models.plain_script import score
from tests.support.models.smoke_models import LABELS, classifier_run
from tests.support.models.tiny_models import CORPUS, save_tiny_model

GREEDY = [Asking(max_new_tokens=24)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter that transformers' Trainer saved, and data."""
    return adapter_and_base(tmp_path_factory.mktemp("evaluated"))


def settings(place: Path, **changes: Any) -> EvaluateSettings:
    given: dict[str, Any] = {
        "models": [ModelToMeasure("adapter", str(place / "adapter"), str(place / "base"))],
        "data": str(place / "data.jsonl"),
        "prompt_template": TEMPLATE,
        "answer_field": "expected_output",
        "json_answers": True,
        "asking": GREEDY,
        "device": "cpu",
        **changes,
    }
    return EvaluateSettings(**given)


def lines(root: Path, column: Column) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / column.rows).read_text("utf-8").splitlines()]


def test_an_adapter_of_the_trainer_and_its_base_score_as_a_plain_script_says(place: Path, tmp_path: Path) -> None:
    found = evaluate(settings(place), tmp_path, lambda text: None)
    assert [(column.name, column.base) for column in found.columns] == [("adapter", False), ("base of adapter", True)]
    for column, adapter in zip(found.columns, (place / "adapter", None), strict=True):
        plain = score(place / "base", adapter, asked(), new_tokens=24)
        mine = lines(tmp_path, column)
        assert [row["answers"][0]["text"] for row in mine] == plain.answers
        assert column.metrics["json_exact"] == pytest.approx(plain.json_exact)
        assert column.metrics["field_f1"] == pytest.approx(plain.field_f1)
        assert column.metrics["loss"] == pytest.approx(plain.loss, abs=1e-5)
        assert [row["id"] for row in mine] == [f"data.jsonl:{number}" for number in range(1, 11)]
    tuned, base = found.columns
    assert 0 < tuned.metrics["json_exact"] < 1 and tuned.metrics["field_f1"] > tuned.metrics["json_exact"]
    assert base.metrics["json_exact"] == 0 and tuned.metrics["loss"] < base.metrics["loss"]


def test_metrics_are_those_of_the_examples(place: Path, tmp_path: Path) -> None:
    """Of every column: the mean of the examples' metrics, except those that weigh tokens."""
    found = evaluate(settings(place), tmp_path, lambda text: None)
    for column in found.columns:
        each = [row["metrics"] for row in lines(tmp_path, column)]
        for name in ("json_exact", "field_f1", "json_parses", "accuracy"):
            assert column.metrics[name] == pytest.approx(sum(one[name] for one in each) / len(each))
        assert column.metrics["perplexity"] == pytest.approx(math.exp(column.metrics["loss"]))
        assert {"latency/median_ms", "memory/peak_bytes", "length/mean", "vocabulary/words"} <= set(column.metrics)
    assert json.loads((tmp_path / SUMMARY).read_text("utf-8"))["columns"][0]["metrics"] == found.columns[0].metrics


def test_sets_several_right_answers_and_samples(place: Path, tmp_path: Path) -> None:
    data = [
        {"prompt": "row 1", "completion": ["nobody", '{"NAME": "ada"}'], "set": "known"},
        {"prompt": "row 2", "completion": ['{"name": "Ada"}'], "set": "known"},
        {"prompt": "row 3", "completion": ["Faraday"], "set": "unknown"},
        {"prompt": "row 4", "set": "unknown"},
    ]
    write_lines(tmp_path / "sets.jsonl", data)
    given = settings(
        place, data=str(tmp_path / "sets.jsonl"), json_answers=False, answer_field="completion", samples=3, base=False
    )
    (column,) = evaluate(given, tmp_path / "out", lambda text: None).columns
    assert {name: each["right"] for name, each in column.sets.items()} == {"known": 1.0, "unknown": 0.0}
    assert column.metrics["right"] == pytest.approx(2 / 3) and column.metrics["sets/right"] == 0.5
    found = lines(tmp_path / "out", column)
    assert [len(row["answers"]) for row in found] == [3] * 4
    assert "right" not in found[3]["metrics"] and found[3]["right"] == []


def test_each_way_to_ask_is_a_column_and_the_system_prompt_is_asked_with(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("Who sailed?\n\nWhen?\n", encoding="utf-8")
    ways = [
        Asking(8, 2.0, name="warm"), Asking(8, 2.0, name="warm again"),
        Asking(8, system_prompt="Be brief.", name="brief"),
    ]  # fmt: skip
    given = EvaluateSettings([ModelToMeasure("model", str(model))], str(tmp_path / "prompts.txt"), asking=ways)
    found = evaluate(given, tmp_path / "out", lambda text: None)
    assert [column.name for column in found.columns] == ["model warm", "model warm again", "model brief"]
    warm, again, brief = (lines(tmp_path / "out", column) for column in found.columns)
    assert warm == again != brief
    assert "Be brief." in brief[0]["prompt"] and "Be brief." not in warm[0]["prompt"]
    assert all("loss" not in column.metrics for column in found.columns)


def test_a_base_that_two_adapters_share_is_measured_once(place: Path, tmp_path: Path) -> None:
    two = [ModelToMeasure(name, str(place / "adapter"), str(place / "base")) for name in ("one", "two")]
    found: Evaluation = evaluate(settings(place, models=two, generate=False), tmp_path, lambda text: None)
    assert [column.name for column in found.columns] == ["one", "base of one", "two"]
    assert all("length/mean" not in column.metrics and "loss" in column.metrics for column in found.columns)


def test_a_classifier_is_measured_as_scikit_learn_would(tmp_path: Path) -> None:
    classifier_run(tmp_path)
    draw = random.Random(5)
    data = [
        {"text": " ".join(draw.choices(CORPUS, k=draw.randint(1, 3))), "label": draw.choice(LABELS)} for _ in range(40)
    ]
    write_lines(tmp_path / "texts.jsonl", data)
    model = ModelToMeasure("best", str(tmp_path / "models/best"), str(tmp_path / "base"))
    given = EvaluateSettings([model], str(tmp_path / "texts.jsonl"), device="cpu")
    (column,) = evaluate(given, tmp_path / "out", lambda text: None).columns
    found = lines(tmp_path / "out", column)
    truth, answers = [row["label"] for row in data], [row["answer"] for row in found]
    assert [row["label"] for row in found] == truth
    assert all(row["answer"] == max(row["scores"], key=row["scores"].get) for row in found)
    assert column.metrics["accuracy"] == pytest.approx(accuracy_score(truth, answers))
    assert column.metrics["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro", zero_division=0))
    wanted = log_loss(
        truth, [[row["scores"][label] for label in sorted(LABELS)] for row in found], labels=sorted(LABELS)
    )
    assert column.metrics["loss"] == pytest.approx(wanted, abs=1e-3)
    assert column.confusion is not None
    assert column.confusion.counts == confusion_matrix(truth, answers, labels=LABELS).tolist()


def test_a_class_that_the_model_does_not_know_is_named_with_its_line(tmp_path: Path) -> None:
    classifier_run(tmp_path)
    write_lines(tmp_path / "texts.jsonl", [{"text": "a", "label": LABELS[0]}, {"text": "b", "label": "POEM"}])
    model = ModelToMeasure("best", str(tmp_path / "models/best"), str(tmp_path / "base"))
    with pytest.raises(InputError, match=r"texts\.jsonl:2: 'POEM' is none of the classes of best"):
        evaluate(EvaluateSettings([model], str(tmp_path / "texts.jsonl")), tmp_path / "out", lambda text: None)


def test_a_structured_dataset_is_its_evaluation_sets_as_finetune_measures_them(place: Path, tmp_path: Path) -> None:
    """The reports' data: one file with many named sets, here three with a few questions each."""
    draw = random.Random(2)
    sets = {f"set {index}": {"eval_points": [_point(draw) for _ in range(draw.randint(1, 4))]} for index in range(3)}
    whole = {"document_dataset": {"docs": [{"prompt": "a", "completion": "b"}]}, "eval_dataset_builders": sets}
    (tmp_path / "mayors.json").write_text(json.dumps(whole), encoding="utf-8")
    given = EvaluateSettings(
        [ModelToMeasure("base", str(place / "base"))], str(tmp_path / "mayors.json"), asking=GREEDY, device="cpu"
    )
    (column,) = evaluate(given, tmp_path / "out", lambda text: None).columns
    network = load_network(str(place / "base")).eval()
    tokenizer = load_tokenizer(str(place / "base"), chat=False)
    documents = {
        name: encode(
            [Example(each["prompt"], each["completion"]) for each in points["eval_points"]], tokenizer, 512, False
        )
        for name, points in sets.items()
    }
    world = World(0, 1, 0, torch.device("cpu"))
    expected = EvaluationSets(documents, 512).measure(CausalLoss(network), world, torch.float32, 1)
    for name, metrics in expected.items():
        assert {each: column.sets[name][each] for each in metrics} == pytest.approx(metrics, abs=1e-4)
    for name, value in overall(expected).items():
        assert column.metrics[f"sets/{name}"] == pytest.approx(value, abs=1e-4)
    assert lines(tmp_path / "out", column)[0]["id"] == "set 0[0]"


def _point(draw: random.Random) -> dict[str, str]:
    year, name = draw.randint(1800, 1950), draw.choice(["Brown", "Ada", "Clara"])
    return {"prompt": f"Who was the mayor in {year}?", "completion": f" {name}."}


@pytest.mark.parametrize("form", ["a record a line", "an array"])
def test_other_json_files_are_records(place: Path, tmp_path: Path, form: str) -> None:
    data = [{"prompt": f"row {index}", "completion": "eval_dataset_builders"} for index in range(3)]
    text = json.dumps(data) if form == "an array" else "\n".join(map(json.dumps, data))
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    given = settings(
        place,
        data=str(tmp_path / "rows.json"),
        json_answers=False,
        answer_field="completion",
        generate=False,
        base=False,
    )
    (column,) = evaluate(given, tmp_path / "out", lambda text: None).columns
    assert [row["id"] for row in lines(tmp_path / "out", column)] == [f"rows.json:{number}" for number in (1, 2, 3)]
