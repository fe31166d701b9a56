"""The history of a run is read from the copy of its events while that copy grows, in parts of any size."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from runner import store
from runner.domain import places
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.workflow.observing.history import LiveHistory, history_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))


def a_run(host: str = "local", parent: str | None = None) -> Run:
    run = Run(mint_id("x"), Job("x"), host, 0.0, parent=parent)
    store.create(run)
    return run


def step(number: int, loss: float) -> bytes:
    return json.dumps({"t": 1e9 + number, "type": "step", "step": number, "loss": loss}).encode() + b"\n"


def write(run: Run, data: bytes, mode: str = "ab") -> None:
    with (places.run_folder(run.run_id) / "events.jsonl").open(mode) as file:
        file.write(data)


@pytest.mark.parametrize("seed", range(20))
def test_events_in_parts_of_any_size_give_the_same_history(seed: int) -> None:
    dice = random.Random(seed)
    odd = [b"\xff\n", b"[" * 70_000 + b"\n", b'"text"\n', b'{"t":1e9,"type":"log","size":3}\n', b"\n"]
    lines = [step(number, dice.random()) if dice.random() < 0.8 else dice.choice(odd) for number in range(1, 100)]
    whole = b"".join(lines)
    run = a_run()
    live, at = LiveHistory(run), 0
    while at < len(whole):
        size = dice.choice([1, 20, 300, 100_000])
        write(run, whole[at : at + size])
        at += size
        live.update()
    numbers = [number for number, line in enumerate(lines, 1) if b'"step"' in line]
    assert list(live.update().training["loss"].steps) == numbers
    assert dataclasses.asdict(live.update()) == dataclasses.asdict(history_of(run))


def test_a_replaced_file_is_read_anew() -> None:
    run = a_run()
    write(run, step(1, 3.0) + step(2, 2.0))
    live = LiveHistory(run)
    assert len(live.update().training["loss"]) == 2
    write(run, step(1, 5.0), "wb")
    assert list(live.update().training["loss"].values) == [5.0]


def test_a_story_is_one_curve_with_a_mark_where_it_went_on() -> None:
    first = a_run("one")
    second = a_run("two", parent=first.run_id)
    third = a_run("two", parent=second.run_id)
    write(first, b"".join(step(number, 1.0) for number in range(1, 8)))
    write(second, b"".join(step(number, 2.0) for number in range(5, 10)))
    write(third, b"".join(step(number, 3.0) for number in range(9, 12)))
    history = history_of(third)
    assert list(history.training["loss"].steps) == list(range(1, 12))
    assert list(history.training["loss"].values) == [1.0] * 4 + [2.0] * 4 + [3.0] * 3
    assert [mark.text for mark in history.marks if mark.kind == "resume"] == [
        f"went on as {second.run_id} on two",
        f"went on as {third.run_id}",
    ]
    assert list(history_of(first).training["loss"].steps) == list(range(1, 8))


def test_a_run_without_events_has_an_empty_history() -> None:
    assert history_of(a_run()).seen is None
    assert history_of(a_run(parent="x-20260102-142030-7f3a")).seen is None
