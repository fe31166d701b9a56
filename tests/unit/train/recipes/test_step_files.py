"""How much of the payload somebody must read to follow one training step: which files run between a step's work and new weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import remote_payload
from remote_payload.train.loop.step import Stepper
from tests.support.models.language_data import conversations, run_recipe_here, write_lines

PAYLOAD = Path(remote_payload.__file__).parent
WARM = 3  # the step that is looked at: what runs only once has run by then

# The loss; order, micro-batches and packing; forward, backward and update; what ranks share; the model and its attention.
FILES = {
    "recipes/sft.py",
    "train/tasks/packed_task.py",
    "train/data/packing.py",
    "train/loop/step.py",
    "train/distributed.py",
    "train/model/causal.py",
    "train/model/attention.py",
}


def test_a_step_of_sft_runs_seven_files_of_the_payload(
    tmp_path: Path, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, ran, take = 0, set(), Stepper.step

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PAYLOAD):
            ran.add(path.relative_to(PAYLOAD).as_posix())

    def traced(stepper: Stepper, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        before = sys.getprofile()
        sys.setprofile(note if steps == WARM else before)
        try:
            return take(stepper, *arguments)
        finally:
            sys.setprofile(before)

    monkeypatch.setattr(Stepper, "step", traced)
    settings = {
        "model": str(tiny_folder("qwen2")), "train": str(write_lines(tmp_path / "chat.jsonl", conversations(30))),
        "max_length": 64, "batch": {"size": 4, "micro": 2}, "epochs": 1, "generation": {"examples": 0},
    }  # fmt: skip
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    assert steps > WARM
    assert ran == FILES
