"""The history of a run: whatever the events hold, curves go forward, no peak is lost, and nothing raises."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from runner.domain.history import MAX_CURVES, MAX_MARKS, Curve, History

ODD: list[Any] = [None, True, "1", [], {}, -1, 1 << 70, float("inf"), float("nan"), 1e308, 0, "\x1b[31mred", {"a": [1]}]


def straight(values: list[float]) -> Curve:
    curve = Curve()
    for number, value in enumerate(values):
        curve.append(number, 100.0 + number, value)
    return curve


@pytest.mark.parametrize("seed", range(50))
def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_order(seed: int) -> None:
    dice = random.Random(seed)
    values = [dice.choice([dice.gauss(0, 1), math.nan, 5.0]) for _ in range(dice.randrange(1, 3000))]
    points = dice.randrange(1, 400)
    curve = straight(values)
    thin = curve.thinned(points)
    assert len(thin) <= max(points, 4, min(len(values), 4))
    assert list(thin.steps) == sorted(set(thin.steps))
    assert all(_same(thin.values[place], values[step]) for place, step in enumerate(thin.steps))
    assert thin.steps[0] == 0 and thin.steps[-1] == len(values) - 1
    numbers = [value for value in values if not math.isnan(value)]
    kept = [value for value in thin.values if not math.isnan(value)]
    if numbers:
        assert (min(kept), max(kept)) == (min(numbers), max(numbers))


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@pytest.mark.parametrize("seed", range(30))
def test_a_run_that_goes_back_does_its_steps_again_and_no_step_is_there_twice(seed: int) -> None:
    dice = random.Random(seed)
    history, truth, step, life = History(), dict[int, float](), 0, 0
    for _ in range(400):
        if step and dice.random() < 0.02:
            step, life = dice.randrange(step), life + 1  # the next one is at most the last
            truth = {known: value for known, value in truth.items() if known <= step}
        step += 1
        loss = step + life / 100
        truth[step] = loss
        history.add({"t": 1e9, "type": "step", "step": step, "total": 1000, "loss": loss})
    assert dict(zip(history.training["loss"].steps, history.training["loss"].values, strict=True)) == truth
    assert (history.step, history.total) == (step, 1000)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_told_of_one_step_in_several_events_is_all_there_and_the_newest_value_counts(seed: int) -> None:
    """A program's bar tells the time of a step, a line its loss, and the bar comes again after the evaluation of that step."""
    dice = random.Random(seed)
    history, truth, measured = History(), {"loss": dict[int, float](), "ms": dict[int, float]()}, dict[int, float]()
    for step in range(1, 60):
        for _ in range(dice.randint(1, 5)):
            value = dice.random()
            if dice.random() < 0.3:
                history.add({"t": 1e9, "type": "eval", "name": "test", "step": step, "metrics": {"f1": value}})
                measured[step] = value
            else:
                told = {name: value for name in truth if dice.random() < 0.6}
                history.add({"t": 1e9, "type": "step", "step": step, **told})
                for name in told:
                    truth[name][step] = value
    for name, values in truth.items():
        assert dict(zip(history.training[name].steps, history.training[name].values, strict=True)) == values
        assert len(history.training[name]) == len(values)
    f1 = history.evaluations["test"]["f1"]
    assert dict(zip(f1.steps, f1.values, strict=True)) == measured and len(f1) == len(measured)


@pytest.mark.parametrize("seed", range(100))
def test_no_event_raises_and_what_is_kept_is_finite_and_without_control_sequences(seed: int) -> None:
    dice = random.Random(seed)
    history = History()
    for _ in range(200):
        event: Any = {"t": dice.choice([1e9 + dice.random(), *ODD])}
        event["type"] = dice.choice(
            ["step", "eval", "epoch", "hardware", "checkpoint", "flag", "oom", "phase", "ended", *ODD]
        )
        for name in ("step", "total", "loss", "name", "metrics", "gpus", "ram", "cpu", "message", "cause", "\x1b[2Jx"):
            if dice.random() < 0.7:
                event[name] = dice.choice([*ODD, dice.random(), dice.randrange(1000)])
        if dice.random() < 0.3:
            event["metrics"] = {dice.choice(["f1", "\x07bell", 3]): dice.choice([*ODD, dice.random()])}
            event["gpus"] = [dice.choice([*ODD, {"index": 0, "power": dice.choice(ODD)}])]
        history.add(dice.choice([event, event, event, *ODD]))
    families = [
        history.training,
        history.epochs,
        history.machine,
        *history.gpus.values(),
        *history.evaluations.values(),
    ]
    for curves in families:
        for name, curve in curves.items():
            assert name.isprintable() and len(curve.steps) == len(curve.times) == len(curve.values)
            assert not any(math.isinf(value) for value in curve.values)
    assert all(mark.text.isprintable() for mark in history.marks)


def test_a_loss_that_is_no_number_is_a_gap() -> None:
    history = History()
    for number, loss in enumerate([2.0, None, 1.0, None]):
        history.add({"t": 1e9, "type": "step", "step": number, "loss": loss, "memory": None})
    assert [math.isnan(value) for value in history.training["loss"].values] == [False, True, False, True]
    assert history.training["loss"].last == 1.0 and "memory" not in history.training


def test_curves_and_marks_are_limited() -> None:
    history = History()
    history.add({"t": 1e9, "type": "step", "step": 1, **{f"figure {number}": 1.0 for number in range(5000)}})
    for number in range(MAX_MARKS + 10):
        history.add({"t": 1e9, "type": "eval", "step": 1, "name": f"set {number}", "metrics": {"f1": 1.0}})
        history.add({"t": 1e9, "type": "checkpoint", "step": 1, "name": f"step-{number:06}"})
    assert len(history.training) == MAX_CURVES == len(history.evaluations) and len(history.marks) == MAX_MARKS
    assert history.marks[-1].text == f"step-{MAX_MARKS + 9:06}"


def test_the_hardware_is_a_curve_a_gpu_and_figure() -> None:
    history = History()
    history.add({"t": 1e9, "type": "step", "step": 7, "loss": 1.0})
    gpu = {"index": 1, "temperature": 60, "power": 250.5, "utilisation": 97, "memory_used": 10, "memory_total": None}
    rest = {"cpu": 12.5, "cpus": 8, "ram": {"used": 1, "total": 2}, "disk": {"free": 3, "total": 4}}
    history.add({"t": 1e9 + 5, "type": "hardware", "gpus": [gpu], **rest})
    assert {name: curve.last for name, curve in history.gpus[1].items()} == {
        "temperature": 60, "power": 250.5, "utilisation": 97, "memory_used": 10,
    }  # fmt: skip
    assert {name: curve.last for name, curve in history.machine.items()} == {
        "cpu": 12.5, "ram_used": 1, "ram_total": 2, "disk_free": 3, "disk_total": 4,
    }  # fmt: skip
    assert list(history.machine["cpu"].steps) == [7] and (history.started, history.seen) == (1e9, 1e9 + 5)
