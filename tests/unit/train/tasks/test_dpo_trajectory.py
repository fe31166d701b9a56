"""A whole DPO training by the recipe beside TRL's own ``DPOTrainer`` from the same adapter, as ``tests/support/models/trl_dpo.py`` ran it.

The reference is the starting adapter for both: TRL makes a copy of an adapter that is already there.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from remote_payload.settings.preference import PreferenceSettings
from remote_payload.train.data.chat import Format
from remote_payload.train.data.packing import Document
from remote_payload.train.data.records import Record
from remote_payload.train.tasks import preferences
from remote_payload.train.tasks.preferences import Pair, encode_pairs
from tests.support.models.language_data import run_recipe_here, write_lines
from tests.support.models.trl_dpo import (
    BETA,
    CASES,
    CLIP,
    DECAY,
    EPOCHS,
    LONGEST,
    PAIRS,
    RATE,
    SIZE,
    Case,
    Trajectory,
    moved,
    recorded,
    starting_point,
    train_with_trl,
)

CLOSE = 3e-4  # of the largest value; seen: 4e-5


def ours(case: Case, root: Path) -> Trajectory:
    """The recipe's run."""
    base, adapter = starting_point(case, root)
    data = write_lines(root / "pairs.jsonl", case.pairs())
    settings: dict[str, Any] = {
        "model": str(base), "adapter": str(adapter), "train": str(data), "max_length": LONGEST, "beta": BETA, "epochs": EPOCHS,
        "precision": "fp32", "batch": {"size": SIZE, "micro": 1}, "schedule": {"name": "constant", "warmup": 0},
        "optimizer": {"learning_rate": RATE, "weight_decay": DECAY, "clip": CLIP}, "generation": {"examples": 0},
        "evaluation": {"every_epochs": None}, "prompt_template": None if case.template else "{prompt}",
    }  # fmt: skip
    assert run_recipe_here("preference", root / "run", settings) == 0
    events = [json.loads(line) for line in (root / "run/events.jsonl").read_text().splitlines()]
    steps, epochs = ([event for event in events if event["type"] == kind] for kind in ("step", "epoch"))
    return Trajectory(
        [_parts(pair) for pair in encoded(case, base)],
        [step["loss"] for step in steps],
        [step["grad_norm"] for step in steps],
        [epoch["metrics"]["chosen_reward"] for epoch in epochs],
        [epoch["metrics"]["rejected_reward"] for epoch in epochs],
        moved(adapter / "adapter_model.safetensors", root / "run/outputs/models/best/adapter_model.safetensors"),
    )


def encoded(case: Case, base: Path) -> list[Pair]:
    records = [Record(value, "pairs.jsonl", line) for line, value in enumerate(case.pairs(), start=1)]
    form = Format(prompt_template=None if case.template else "{prompt}")
    fields = PreferenceSettings(model="", adapter="", train="", max_length=LONGEST)
    pairs, left_out = encode_pairs(records, AutoTokenizer.from_pretrained(base), form, fields)
    assert not left_out
    return pairs


def _parts(pair: Pair) -> list[list[int]]:
    """Prompt, chosen and rejected answer; what follows an answer is not counted, and left out."""
    prompt = pair.chosen.ids[: pair.chosen.learn.index(True)]
    return [prompt, *(_answer(document) for document in (pair.chosen, pair.rejected))]


def _answer(document: Document) -> list[int]:
    return [token for token, learnt in zip(document.ids, document.learn, strict=True) if learnt]


def same(found: Trajectory, other: Trajectory, rel: float) -> None:
    """Everything but the tokens; ``rel`` is relative to the largest value of each kind."""
    for name in ("losses", "grad_norms", "chosen_rewards", "rejected_rewards"):
        expected = getattr(other, name)
        assert getattr(found, name) == pytest.approx(expected, rel=0, abs=rel * max(map(abs, expected))), name
    assert found.moved.keys() == other.moved.keys()
    for name, expected in other.moved.items():
        assert found.moved[name] == pytest.approx(expected, rel=0, abs=rel * expected[0]), name


@pytest.mark.parametrize("name", ["text", "conversations"])
def test_the_trajectory_is_that_of_trl(name: str, tmp_path: Path) -> None:
    found, theirs = ours(CASES[name], tmp_path), recorded(name)
    assert found.tokens == theirs.tokens
    assert len(found.losses) == EPOCHS * math.ceil(len(PAIRS) / SIZE)
    same(found, theirs, CLOSE)
    assert found.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert min(theirs.losses) < math.log(2) - 0.1  # it has learnt


def test_what_a_template_writes_after_the_end_token_is_no_part_of_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL counts it, as the line break of Qwen's template, which the model never writes: generation is over by then.
    Counted here too, all is equal, so that nothing else differs."""
    case, theirs = CASES["a line break after the end token"], recorded("a line break after the end token")
    base, _ = starting_point(case, tmp_path / "tokens")
    line_break = AutoTokenizer.from_pretrained(base)("\n", add_special_tokens=False)["input_ids"]
    pairs = [_parts(pair) for pair in encoded(case, base)]
    assert [[prompt, *(answer + line_break for answer in answers)] for prompt, *answers in pairs] == theirs.tokens
    monkeypatch.setattr(preferences, "last_turn_only", _to_the_end)
    same(ours(case, tmp_path), theirs, CLOSE)


def _to_the_end(document: Document) -> Document:
    start = document.learn.index(True)
    return Document(document.ids, [index >= start for index in range(len(document))])


@pytest.mark.parametrize("name", CASES)
def test_trl_itself_gives_what_was_recorded(name: str, tmp_path: Path) -> None:
    pytest.importorskip(
        "trl", reason="TRL is not installed; its trajectory is kept in tests/support/models/trl_dpo.json"
    )
    found = train_with_trl(CASES[name], tmp_path)
    assert found.tokens == recorded(name).tokens
    same(found, recorded(name), CLOSE)
