from __future__ import annotations

import json
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from remote_payload.train import wandb_run
from remote_payload.train.telemetry import MAX_EVENT, Events, Telemetry, step_line

STEP = {
    "step": 12, "total": 100, "epoch": 0.36, "loss": 1.23456, "lr": 2e-4, "grad_norm": 0.81, "tokens_per_second": 3456.0,
    "mfu": 0.31, "ms": 210.4, "memory": 5 * 2**30,
}  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_has_its_time_and_type_and_nan_is_null(tmp_path: Path) -> None:
    Events(tmp_path / "e").emit("step", loss=math.nan, norms=[1.0, math.inf], place=Path("x"))
    (event,) = lines(tmp_path / "e")
    assert abs(event.pop("t") - os.stat(tmp_path / "e").st_mtime) < 5
    assert event == {"type": "step", "loss": None, "norms": [1.0, None], "place": "x"}


def test_an_event_that_is_too_long_loses_its_longest_field(tmp_path: Path) -> None:
    Events(tmp_path / "e").emit("eval", name="sets", metrics={f"set {n}": 1.0 for n in range(10_000)})
    assert (tmp_path / "e").stat().st_size < MAX_EVENT
    assert lines(tmp_path / "e")[0]["name"] == "sets"


def test_several_writers_never_mix_their_lines(tmp_path: Path) -> None:
    def write(name: str) -> None:
        events = Events(tmp_path / "e")
        for number in range(200):
            events.emit("step", step=number, writer=name, padding="x" * 500)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        assert [event["step"] for event in lines(tmp_path / "e") if event["writer"] == name] == list(range(200))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_loses_events_and_not_the_run() -> None:
    Events(Path("/dev/full")).emit("step", step=1)


def test_tensorboard_has_the_curves_of_steps_and_evaluations(tmp_path: Path) -> None:
    telemetry = Telemetry("run", tmp_path / "e", tmp_path / "logs", main=True)
    telemetry.step(STEP)
    telemetry.evaluation("validation", 12, {"loss": 0.5, "macro_f1": 0.75})
    telemetry.close()
    board = EventAccumulator(str(tmp_path / "logs"))
    board.Reload()
    assert set(board.Tags()["scalars"]) >= {"train/loss", "train/lr", "train/mfu", "validation/macro_f1"}
    (point,) = board.Scalars("validation/macro_f1")
    assert (point.step, point.value) == (12, 0.75)


def test_other_ranks_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry("run", tmp_path / "e", tmp_path / "logs", main=False)
    telemetry.step(STEP)
    telemetry.flag("nan", "a loss")
    telemetry.close()
    assert (list(tmp_path.iterdir()), capsys.readouterr().out) == ([], "")


def test_a_step_is_one_line_for_people() -> None:
    assert step_line(STEP) == (
        "step 12/100  epoch 0.36  loss 1.2346  lr 2.0e-04  norm 0.81  3,456 tok/s  MFU 31.0%  210 ms  5.0 GiB"
    )
    assert "MFU" not in step_line({**STEP, "mfu": None})


def test_wandb_without_its_package_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    Telemetry("run", tmp_path / "e", tmp_path / "logs", main=True).close()
    said = capsys.readouterr().err
    assert "W&B is left out" in said and "0123456789abcdef" not in said


class StandIn:
    """Stands for the wandb package and for a run of it; while ``silent``, its service does not answer."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.id, self.url, self.broken = "abc123", "https://wandb.test/abc123", False

    Settings = staticmethod(dict)
    silent = False

    def init(self, **asked: Any) -> StandIn:
        self.asked.append(asked)
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        if self.broken:
            raise ConnectionError("gone")

    def finish(self) -> None:
        if self.silent:
            threading.Event().wait()
        if self.broken:
            raise ConnectionError("gone")


@pytest.mark.stand_in
def test_wandb_that_breaks_costs_its_curves_alone_and_a_resumed_run_goes_on_with_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, record = StandIn(), tmp_path / "reports" / "wandb.json"
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for run, resumed in (("first", False), ("second", True)):
        telemetry = Telemetry(run, tmp_path / "e", tmp_path / run, main=True, wandb_record=record, resumed=resumed)
        telemetry.step(STEP)
        wandb.broken = True
        telemetry.step(STEP)
        telemetry.step(STEP)
        telemetry.close()
        wandb.broken = False
    assert [asked.get("id") for asked in wandb.asked] == [None, "abc123"] and wandb.asked[1]["resume"] == "allow"
    flags = [line for line in (tmp_path / "e").read_text().splitlines() if '"wandb_lost"' in line]
    assert len(flags) == 2, "said once a run"


@pytest.mark.stand_in
@pytest.mark.parametrize(("trouble", "told"), [("silent", True), ("broken", True), ("", False)])
def test_a_run_ends_though_wandb_does_not_and_says_where_the_rest_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trouble: str, told: bool
) -> None:
    wandb = StandIn()
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(wandb_run, "FINISH", 0.3)
    telemetry = Telemetry("run", tmp_path / "e", tmp_path / "logs", main=True)
    telemetry.step(STEP)
    setattr(wandb, trouble or "fine", True)
    telemetry.close()
    assert (f"the rest is in {tmp_path / 'logs' / 'wandb'}: wandb sync" in capsys.readouterr().out) == told
    (asked,) = wandb.asked
    assert asked["dir"] == str(tmp_path / "logs") and asked["settings"]["init_timeout"] == wandb_run.START


@pytest.mark.stand_in
@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"url": "x"}', "\udcff"])
def test_a_resumed_run_whose_note_of_wandb_is_damaged_begins_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    wandb, record = StandIn(), tmp_path / "wandb.json"
    if content is not None:
        record.write_bytes(content.encode("utf-8", "surrogateescape"))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    Telemetry("run", tmp_path / "e", tmp_path / "logs", main=True, wandb_record=record, resumed=True).close()
    (asked,) = wandb.asked
    assert "id" not in asked
    assert json.loads(record.read_text())["id"] == "abc123"
