"""What ``gpurun watch`` draws: whatever the history and the size of the terminal, it fits, and no peak is lost."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
from rich.cells import cell_len

from runner.cli.watching.picture import Picture
from runner.cli.watching.plot import plot
from runner.cli.watching.rows import plain
from runner.cli.watching.screen import screen
from runner.cli.watching.sketch import PIECES, Sketch
from runner.domain.history import Curve, History
from runner.domain.terminal import clean
from tests.support.observing.watched import NOW, long_curve, picture

NAMES = ["accuracy", "准确率" * 30, "🎯 f1 👩‍🔬", "e\u0301" * 9, "x" * 300, "\x1b[2Jred", "", "العربية"]
VALUES: list[Any] = [None, 0.5, -1e308, 1e308, 5e-324, 0, 1 << 60, float("nan"), "x", True]


def odd_picture(dice: random.Random) -> Picture:
    """A run of any kind: of no step, of one, of many; with names of any script, and with any number of GPUs."""
    made = picture(dice.randrange(9), dice.choice([1, 2, 30, 150]), dice.choice([0, 1, 8, 64]))
    told = made.history if dice.random() < 0.6 else History()
    for step in range(dice.choice([0, 1, 40])):
        names = {dice.choice(NAMES): dice.choice(VALUES) for _ in range(3)}
        told.add(
            {"t": NOW, "type": "step", "step": step * dice.choice([1, 1 << 40]), "loss": dice.choice(VALUES), **names}
        )
        told.add({"t": NOW, "type": "eval", "name": dice.choice(NAMES), "step": step, "metrics": names})
        told.add({"t": NOW, "type": "flag", "message": dice.choice(NAMES)})
    status = made.seen.status
    assert status is not None
    if dice.random() < 0.3:
        status = None
    elif dice.random() < 0.5:
        progress: Any = {"step": {"step": dice.choice(VALUES), "total": dice.choice(VALUES), "ms": dice.choice(VALUES)}}
        status = dataclasses.replace(
            status, progress=progress, evidence=dice.choice(NAMES), gpus=(), phase="finished", outcome="failed"
        )
    run = dataclasses.replace(
        made.seen.run, run_id=dice.choice(["a", "x" * 90]) + "-20260102-142030-7f3a", status=status
    )
    seen = dataclasses.replace(made.seen, run=run, status=status)
    log = [clean(name) for name in NAMES] if dice.random() < 0.8 else []
    return Picture(seen, told, log, trouble=dice.choice(["", *NAMES]), home=("best",) if dice.random() < 0.5 else ())


@pytest.mark.parametrize("seed", range(60))
def test_it_fits_every_terminal(seed: int) -> None:
    dice = random.Random(seed)
    pictures = [odd_picture(dice) for _ in range(dice.choice([1, 1, 2, 4, 9, 30]))]
    sizes = [(40, 10), (80, 24), (200, 50), (240, 70)] + [
        (dice.randrange(40, 241), dice.randrange(10, 71)) for _ in range(6)
    ]
    for width, height in sizes:
        lines = [plain(row) for row in screen(pictures, width, height, "q leaves")]
        assert len(lines) <= height and lines[-1] == "q leaves", (width, height)
        assert max(map(cell_len, lines)) <= width, (width, height)
        assert all(line.isprintable() or "\u200d" in line for line in lines)
        assert any(pictures[0].seen.run.run_id[:8] in line for line in lines)


def test_every_size_of_a_terminal_is_drawn() -> None:
    pictures = [picture(seed, 60) for seed in range(3)]
    for width in range(40, 241, 7):
        for height in (10, 13, 24, 37, 70):
            lines = [plain(row) for row in screen(pictures, width, height, "q leaves")]
            assert len(lines) <= height and max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("seed", range(30))
def test_a_sketch_is_the_same_however_its_curve_grew_and_loses_no_peak(seed: int) -> None:
    dice, curve, sketch, step = random.Random(seed), Curve(), Sketch(), 0
    for _ in range(dice.randrange(1, 60)):
        if dice.random() < 0.1:
            step = dice.randrange(step + 1)
            curve.drop_from(step + 1)
        for _ in range(dice.randrange(200)):
            step += 1
            curve.append(step, dice.random(), dice.choice([dice.gauss(0, 1), math.nan]))
        sketch.update(curve)
    whole = Sketch()
    whole.update(curve)
    assert repr(sketch.pieces) == repr(whole.pieces) and len(whole.pieces) <= PIECES
    numbers = [value for value in curve.values if not math.isnan(value)]
    kept = [piece for piece in whole.pieces if not math.isnan(piece.low)]
    if numbers:
        assert (min(each.low for each in kept), max(each.high for each in kept)) == (min(numbers), max(numbers))


def test_a_curve_of_a_million_points_is_drawn_with_its_one_peak_at_the_end() -> None:
    sketch = Sketch()
    sketch.update(long_curve(1_000_000))
    lines = plot(sketch, 60, 8, 0, 1_000_000)
    assert lines[0].startswith("      7 ") and lines[-1].startswith("    1.5 ")
    assert lines[0][-1] != "\u2800" and set(lines[0][8:-1]) == {"\u2800"}


@pytest.mark.parametrize("seed", range(40))
def test_a_dot_stands_where_its_value_is(seed: int) -> None:
    """Read back: of each column of dots the highest and the lowest are those of the curve, to a dot."""
    dice, curve, sketch = random.Random(seed), Curve(), Sketch()
    width, height = dice.randrange(20, 90), dice.randrange(2, 20)
    wide, tall = 2 * (width - 8), 4 * height
    values = [dice.gauss(0, 3) for _ in range(wide)]
    for step, value in enumerate(values):
        curve.append(step, 1.0, value)
    sketch.update(curve)
    lines = plot(sketch, width, height, 0, wide - 1)
    low, high = min(values), max(values)
    for step, value in enumerate(values):
        expected = round((1 - (value - low) / (high - low)) * (tall - 1))
        assert (step, expected) in dots(lines), (step, value)


def dots(lines: list[str]) -> set[tuple[int, int]]:
    found = set()
    for row, line in enumerate(lines):
        for place, character in enumerate(line[8:]):
            bits = ord(character) - 0x2800
            for bit, (x, y) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]):
                if bits >> bit & 1:
                    found.add((2 * place + x, 4 * row + y))
    return found
