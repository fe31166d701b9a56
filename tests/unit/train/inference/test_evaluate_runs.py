"""A run's model, evaluated afterwards on its own held-out data, has the figures that the run itself reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remote_payload.recipes.evaluate import evaluate
from remote_payload.recipes.evaluated import Column
from remote_payload.settings.evaluate import Asking, EvaluateSettings, ModelToMeasure
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.language_data import conversations, extractions, run_recipe_here, write_lines
from tests.support.models.tiny_models import save_tiny_model

QUICK = {"max_length": 96, "epochs": 1, "batch": {"size": 8}, "lora": {"rank": 4}, "smoke_rows": 1}
GENERATION = {"examples": None, "max_new_tokens": 8, "latency_examples": 0}


def columns(place: Path, model: Path, data: Path, **more: object) -> list[Column]:
    """What an evaluation on the CPU finds."""
    asking = [Asking(max_new_tokens=8)]
    settings = EvaluateSettings(
        [ModelToMeasure("it", str(model), str(place / "base"))],
        str(data),
        asking=asking,
        latency_examples=0,
        device="cpu",
        **more,
    )  # type: ignore[arg-type]
    return evaluate(settings, place / "evaluation", lambda text: None).columns


@pytest.mark.parametrize("form", ["chat", "json"])
def test_a_tuned_language_model_and_its_base_have_the_figures_of_the_report(tmp_path: Path, form: str) -> None:
    base = save_tiny_model("qwen2", tmp_path / "base")
    rows = conversations if form == "chat" else extractions
    held_out = write_lines(tmp_path / "test.jsonl", rows(12, seed=5))
    settings = {
        "model": str(base), "train": str(write_lines(tmp_path / "train.jsonl", rows(24))), "validation": str(held_out),
        "generation": GENERATION, **QUICK,
    }  # fmt: skip
    more: dict[str, object] = {}
    if form == "json":
        told = {"completion_field": "expected_output", "schema_field": "schema"}
        settings |= {"prompt_template": "{prompt}\nJSON:", "json_extraction": True, **told}
        more = {"answer_field": "expected_output", "schema_field": "schema", "json_answers": True}
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    outputs = tmp_path / "run" / "outputs"
    reported = json.loads((outputs / "reports" / "evaluation.json").read_text("utf-8"))
    tuned, before = columns(tmp_path, outputs / "models" / "best", held_out, **more)
    for column, name in ((tuned, "tuned"), (before, "base")):
        for metric, value in reported["held_out"][name].items():
            assert column.metrics[metric] == pytest.approx(value, rel=1e-4), metric
        scores = reported["generation"][name]
        compared = ("json_exact", "field_f1", "schema_compliance") if form == "json" else ("bleu", "rouge1", "rougeL")
        for metric in (*compared, "ended_share"):
            assert column.metrics[metric] == pytest.approx(scores[metric]), metric
        assert column.metrics["length/mean"] == scores["length"]["mean"]


def test_a_classifier_and_its_last_checkpoint_have_the_figures_of_the_run(tmp_path: Path) -> None:
    base = save_tiny_model("bert", tmp_path / "base")
    held_out = write_texts(tmp_path / "held.jsonl", 30, seed=4)
    settings = classify_settings(
        base, write_texts(tmp_path / "train.jsonl", 48), validation=str(held_out), binary_threshold=1, epochs=1
    )
    assert run_recipe_here("classify", tmp_path / "run", settings) == 0
    outputs = tmp_path / "run" / "outputs"
    best = outputs / "models" / "best"
    reported = json.loads((best / "metrics.json").read_text("utf-8"))
    (column,) = columns(tmp_path, best, held_out)
    named = {"accuracy", "macro_f1", "weighted_f1", "binary_f1_1", "loss"}
    flat = reported.get("metrics", reported)
    assert named <= set(flat)
    assert {name: column.metrics[name] for name in named} == pytest.approx(
        {name: flat[name] for name in named}, rel=1e-4
    )
    checkpoint = sorted((outputs / "checkpoints").glob("step-*"))[-1]
    (again,) = columns(tmp_path, checkpoint, held_out)
    assert {name: again.metrics[name] for name in named} == pytest.approx(
        {name: flat[name] for name in named}, rel=1e-4
    )
