"""``gpurun evaluate`` as it is typed: an adapter that gpurun never saw, beside its base, in a process without token and network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.cli.documents.evaluation import Evaluate
from tests.support.cli import Gpurun
from tests.support.document_types import differences
from tests.support.hub import Hub
from tests.support.models.edge_json import TEMPLATE, adapter_and_base, asked
from tests.support.models.plain_script import score

SETTINGS = ("--set", "answer_field=expected_output", "--set", "json_answers=true", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = adapter_and_base(tmp_path_factory.mktemp("edge"))
    (root / "template.txt").write_text(TEMPLATE, encoding="utf-8")
    return root


def arguments(target: str = "adapter") -> tuple[str, ...]:
    template = ("--set", "prompt_template=@template.txt")
    return ("evaluate", f"./{target}", "--data", "data.jsonl", *SETTINGS, *template, "--grid", "max_new_tokens=24")


def test_the_blocked_step_of_the_report_and_a_regression(gpurun: Gpurun, place: Path, tmp_path: Path) -> None:
    """Measured on a CPU beside its base, equal to a plain script; then held against those results, and its base against it."""
    first = tmp_path / "first"
    shown = gpurun(*arguments(), "--output", str(first), cwd=place).stdout
    assert all(len(line) <= 80 for line in shown.splitlines() if not line.startswith(("/", "evaluations")))
    summary = json.loads((first / "evaluation.json").read_text("utf-8"))
    for column, adapter in zip(summary["columns"], (place / "adapter", None), strict=True):
        plain = score(place / "base", adapter, asked(), new_tokens=24)
        figures = (column["metrics"]["json_exact"], column["metrics"]["field_f1"], column["metrics"]["loss"])
        assert figures == pytest.approx((plain.json_exact, plain.field_f1, plain.loss), abs=1e-5)
    assert "json_exact, better: `data.jsonl:1`" in (first / "evaluation.md").read_text("utf-8")

    held: Any = gpurun.json(
        *arguments("base"), "--output", str(tmp_path / "second"), "--against", str(first), "--tolerance", "0.05",
        "--tolerance", "json_parses=1", check=6, cwd=place,
    )  # fmt: skip
    assert differences(held, Evaluate, set()) == []
    assert {"loss", "json_exact", "field_f1"} <= {each["metric"] for each in held["worse"]}
    (compared,) = held["compared"]
    exact = next(each for each in compared["differences"] if each["metric"] == "json_exact")
    assert compared["other"] == "./adapter" and exact["better"] == [] and len(exact["worse"]) == 4 and exact["high"] < 0


def test_an_adapter_whose_base_is_on_the_hub_beside_that_model(
    gpurun: Gpurun, hub: Hub, place: Path, tmp_path: Path
) -> None:
    """Both are brought here before the process without a network starts; the base is the same model as the one that is named."""
    hub.add_model("org/base", place / "base")
    adapter = Path(shutil.copytree(place / "adapter", tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/base"}))
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint}
    words = list(arguments())
    words[1:2] = [str(adapter), "org/base"]
    found: Any = gpurun.json(*words, "--set", "generate=false", "--output", str(tmp_path / "found"), cwd=place)
    tuned, base, named = found["columns"]
    assert (tuned["base"], base["base"], named["name"]) == (False, True, "org/base")
    assert base["metrics"]["loss"] == pytest.approx(named["metrics"]["loss"], rel=1e-6)
    assert tuned["metrics"]["loss"] < base["metrics"]["loss"]


def test_a_regression_test_that_compares_nothing_does_not_pass(gpurun: Gpurun, place: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("Who?\n", encoding="utf-8")
    words = (
        "evaluate",
        "./base",
        "--data",
        str(tmp_path / "prompts.txt"),
        "--set",
        "generate=false",
        "--device",
        "cpu",
    )
    failed = gpurun(*words, "--against", "./base", "--output", str(tmp_path / "out"), check=2, cwd=place)
    assert "no metric in common" in failed.stderr


def test_what_is_no_model_and_no_data_is_told_before_anything_is_loaded(gpurun: Gpurun, place: Path) -> None:
    failed = gpurun("evaluate", "./nothing", "--data", "data.jsonl", check=2, cwd=place)
    assert "there is no folder ./nothing" in failed.stderr
    assert "there is no file none" in gpurun("evaluate", "./base", "--data", "none", check=2, cwd=place).stderr
    wrong = gpurun("evaluate", "./base", "--data", "data.jsonl", "--tolerance", "1", check=2, cwd=place)
    assert "give --against" in wrong.stderr
