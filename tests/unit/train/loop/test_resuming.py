"""Going on from a checkpoint, beside a run that was never interrupted."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pytest

from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError, Stopped
from remote_payload.train.state.checkpoint import checkpoints_in
from remote_payload.train.state.progress import Progress
from tests.support.models.toy_training import ToyTask, toy_run, toy_train

EVERY = {"epochs": 4, "evaluation": {"every_steps": 2}, "checkpoint": {"every_steps": 4, "keep": None}}


class Figures(ToyTask):
    """Evaluations find what was given in advance; a signal comes with one of them, before its batch is looked at."""

    figures: ClassVar[list[float]] = [9.0]
    signal_at: tuple[int, int] | None = None  # which evaluation, which signal
    asked = 0

    def evaluate(self, model: Any, size: int) -> dict[str, float]:
        self.asked += 1
        if self.signal_at and self.signal_at[0] == self.asked:
            os.kill(os.getpid(), self.signal_at[1])
        value = self.figures[min(self.asked, len(self.figures)) - 1]
        return {**super().evaluate(model, size), "loss": value}


def steps_with(folder: Path, kind: str) -> list[int]:
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event["step"] for event in events if event["type"] == kind]


def judged(progress: Progress) -> tuple[Any, ...]:
    said = [{**entry, "seconds": 0} for entry in progress.evaluations]
    return progress.step, progress.best, progress.best_step, progress.without_better, said


def test_a_stop_ends_an_evaluation_and_the_resumed_run_makes_up_for_it(tmp_path: Path) -> None:
    _, whole = toy_train(toy_run(tmp_path / "whole", EVERY))
    run = toy_run(tmp_path / "cut", EVERY)
    task = Figures(run)
    task.signal_at = (2, signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped at step 4, checkpoint saved"):
        toy_train(run, task)
    assert steps_with(tmp_path / "cut", "eval") == [2], "the evaluation at step 4 went on"

    _, rest = toy_train(toy_run(tmp_path / "cut", EVERY, resume="auto"))
    assert steps_with(tmp_path / "cut", "eval") == [2, 4, 6, 8, 10, 12]
    assert [entry["step"] for entry in rest.progress.evaluations] == [2, 4, 6, 8, 10, 12]
    assert rest.losses == whole.losses[4:]


def test_a_stop_in_the_step_before_an_evaluation_changes_neither_the_best_nor_the_patience(tmp_path: Path) -> None:
    _, whole = toy_train(toy_run(tmp_path / "whole", EVERY))

    class StopsAtFour(ToyTask):
        taken = 0

        def micro_batches(self, step: Any, size: int) -> Any:
            self.taken += 1
            if self.taken == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().micro_batches(step, size)

    run = toy_run(tmp_path / "cut", EVERY)
    with pytest.raises(Stopped):
        toy_train(run, StopsAtFour(run))
    _, rest = toy_train(toy_run(tmp_path / "cut", EVERY, resume="auto"))
    assert judged(rest.progress) == judged(whole.progress)


def test_a_checkpoint_that_is_asked_for_during_an_evaluation_is_saved_after_the_next_step(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {**EVERY, "checkpoint": {"every_steps": 100, "keep": None}})
    task = Figures(run)
    task.figures, task.signal_at = [1.0, 2.0], (2, signal.SIGUSR1)
    _, outcome = toy_train(run, task)
    assert outcome.reason == "finished"
    assert steps_with(tmp_path, "checkpoint") == [2, 5, 12]


def test_a_run_that_ended_early_ends_again_without_a_step_and_goes_on_when_its_patience_is_taken_away(
    tmp_path: Path,
) -> None:
    settings = {**EVERY, "evaluation": {"every_steps": 2, "patience": 2}}
    run = toy_run(tmp_path, settings)
    task = Figures(run)
    task.figures = [1.0, 2.0]
    assert toy_train(run, task)[1].reason == "early stopping"
    _, again = toy_train(toy_run(tmp_path, settings, resume="auto"))
    assert (again.reason, again.losses, again.progress.step) == ("early stopping", [], 6)
    _, on = toy_train(toy_run(tmp_path, EVERY, resume="auto"))
    assert (on.reason, on.progress.step) == ("finished", 12)


def test_time_and_speed_are_of_the_whole_run(tmp_path: Path) -> None:
    _, first = toy_train(toy_run(tmp_path, EVERY))
    _, again = toy_train(toy_run(tmp_path, EVERY, resume="auto"))
    assert again.losses == [] and again.progress.tokens == first.progress.tokens
    assert again.seconds >= first.seconds * 0.5 > 0
    assert again.tokens_per_second == pytest.approx(first.tokens_per_second)


def test_another_seed_is_refused_and_other_data_is_flagged(tmp_path: Path) -> None:
    toy_train(toy_run(tmp_path, EVERY))
    with pytest.raises(InputError, match="step-000012 was trained with seed 0, the job says 1"):
        toy_train(toy_run(tmp_path, {**EVERY, "seed": 1}, resume="auto"))
    toy_train(toy_run(tmp_path, {**EVERY, "batch": {"size": 4}, "epochs": 2.5}, resume="auto"))
    assert "data_changed" in (tmp_path / "events.jsonl").read_text()


def test_checkpoints_after_the_one_that_is_gone_on_from_do_not_outlive_those_of_the_new_steps(tmp_path: Path) -> None:
    toy_train(toy_run(tmp_path, EVERY))
    settings = {**EVERY, "checkpoint": {"every_steps": 1, "keep": 1}, "evaluation": {"every_epochs": None}, "epochs": 2}
    toy_train(toy_run(tmp_path, settings, resume="step-000004"))
    assert [found.step for found in checkpoints_in(tmp_path / "outputs/checkpoints")][-1] == 6


@pytest.mark.stand_in
@pytest.mark.parametrize(("fits_now", "hardware", "expected"), [(4, "cpu", 2), (8, "cpu", 8), (4, "another GPU", 4)])
def test_a_resumed_run_takes_what_fits_its_own_gpu_and_keeps_what_an_oom_left_on_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits_now: int, hardware: str, expected: int
) -> None:
    from remote_payload.train.loop.fitting import FittingSteps

    monkeypatch.setattr(FittingSteps, "find", lambda fitting: 4)
    run = toy_run(tmp_path, {**EVERY, "epochs": 2, "oom_on_rank": 0})
    _, first = toy_train(run)
    assert (first.progress.micro_batch_rows, first.progress.probed) == (2, 4)
    monkeypatch.setattr(FittingSteps, "find", lambda fitting: fits_now)
    monkeypatch.setattr(World, "hardware", hardware)
    _, again = toy_train(toy_run(tmp_path, EVERY, resume="auto"))
    assert (again.progress.micro_batch_rows, again.progress.probed) == (expected, fits_now)


def test_the_state_of_an_older_checkpoint_is_read() -> None:
    state = {**asdict(Progress(step=4, micro_batch_rows=2, probed=4)), "micro": 2}
    del state["micro_batch_rows"]
    assert Progress.from_state(state) == Progress(step=4, micro_batch_rows=2, probed=4)


def test_a_best_that_was_judged_the_wrong_way_round_is_judged_again(tmp_path: Path) -> None:
    run = toy_run(tmp_path, EVERY)
    task = Figures(run)
    task.figures = [3.0, 1.0, 2.0, 5.0, 4.0, 6.0]
    toy_train(run, task)
    state = tmp_path / "outputs/checkpoints/step-000012/state.json"
    assert json.loads(state.read_text())["best_step"] == 4
    settings = {**EVERY, "evaluation": {"every_steps": 2, "metric": "tokens"}}
    _, again = toy_train(toy_run(tmp_path, settings, resume="auto"))
    assert again.progress.best_step == 2
