from __future__ import annotations

import json
from types import SimpleNamespace

from remote_payload.train.loop.overlap import flag_repetitions
from tests.support.models.language_data import conversations, run_recipe_here, write_lines


def flags_of(*arguments, **sides):
    found = []
    flag_repetitions(
        SimpleNamespace(telemetry=SimpleNamespace(flag=lambda *words: found.append(words))), *arguments, **sides
    )
    return found


def test_texts_that_differ_in_case_spaces_or_form_alone_are_the_same():
    (flag,) = flags_of(["The ship\nleft  London.", "Ⅳ é"], validation=["the SHIP left london. ", "IV e\u0301", "new"])
    assert flag[0] == "validation_in_training" and flag[1].startswith("2 of 3 validation examples are in train too")


def test_nothing_is_said_where_nothing_is_repeated():
    assert flags_of(["a", "b"], validation=["c"], test=[]) == []


def test_each_side_has_its_own_flag():
    names = [name for name, _ in flags_of(["a", "b"], validation=["a"], test=["b"])]
    assert names == ["validation_in_training", "test_in_training"]


def test_a_run_whose_validation_is_its_training_data_says_so(tmp_path, tiny_folder):
    data = write_lines(tmp_path / "chat.jsonl", conversations(20))
    settings = {
        "model": str(tiny_folder("qwen2")), "train": str(data), "validation": str(data), "max_length": 64, "max_steps": 1,
        "generation": {"examples": 0},
    }  # fmt: skip
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    (flag,) = [event for event in events if event["type"] == "flag" and event["name"].endswith("_in_training")]
    assert flag["message"].startswith("20 of 20 validation examples are in train too")
