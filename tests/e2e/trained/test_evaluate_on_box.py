"""``gpurun evaluate --host``: the blocked step of the EdgeJSON report over SSH, equal to what this machine and a plain script measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.documents.evaluation import Evaluate
from tests.support.cli import Gpurun
from tests.support.document_types import differences
from tests.support.models.edge_json import TEMPLATE, adapter_and_base, asked
from tests.support.models.plain_script import score


def test_an_adapter_that_gpurun_never_saw_is_measured_on_a_box(gpurun: Gpurun, tmp_path: Path) -> None:
    place = adapter_and_base(tmp_path / "edge")
    (place / "template.txt").write_text(TEMPLATE, encoding="utf-8")
    found = gpurun.json(
        "evaluate", "./adapter", "--data", "data.jsonl", "--set", "answer_field=expected_output", "--set", "json_answers=true",
        "--set", "prompt_template=@template.txt", "--grid", "max_new_tokens=24", "--device", "cpu", "--host", "local",
        "--output", str(tmp_path / "found"), cwd=place,
    )  # fmt: skip
    assert differences(found, Evaluate, set()) == [] and found["passed"]
    for column, adapter in zip(found["columns"], (place / "adapter", None), strict=True):
        plain = score(place / "base", adapter, asked(), new_tokens=24)
        figures = (column["metrics"]["json_exact"], column["metrics"]["field_f1"], column["metrics"]["loss"])
        assert figures == pytest.approx((plain.json_exact, plain.field_f1, plain.loss), abs=1e-5)
        rows = (tmp_path / "found" / column["rows"]).read_text("utf-8").splitlines()
        assert [json.loads(row)["answers"][0]["text"] for row in rows] == plain.answers
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"evaluation.json", "evaluation.md", "examples"}
    (listed,) = gpurun.json("list")["runs"]
    assert listed["job_name"] == "evaluate-data" and listed["status"]["outcome"] == "succeeded"
