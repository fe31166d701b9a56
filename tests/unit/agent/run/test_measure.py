"""The figures of the benchmarks: turns, medians, bounds, and what is written down."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import measure
from tests.benchmarks.measure import Row


@pytest.mark.parametrize(
    ("ours", "by_hand", "bound", "more", "met"),
    [
        (1.0, 2.0, 0.5, False, True),
        (1.1, 2.0, 0.5, False, False),
        (80.0, 100.0, 0.8, True, True),
        (79.0, 100.0, 0.8, True, False),
        (9.0, 1.0, None, False, None),
    ],
)
def test_a_bound_is_kept_or_not(ours: float, by_hand: float, bound: float | None, more: bool, met: bool | None) -> None:
    assert Row("x", ours, by_hand, "s", bound, more).met is met


def test_a_line_says_both_figures_the_ratio_and_the_bound() -> None:
    assert str(Row("copy", 1.234, 2.0, "s", 0.5)) == "copy: 1.23 / 2 s by hand = 0.62 (bound ≤ 0.50, MISSED)"


def test_both_sides_take_turns_and_neither_is_always_second() -> None:
    said: list[str] = []

    def side(name: str, value: float) -> float:
        said.append(name)
        return value

    samples = measure.by_turns(3, lambda: side("a", 1.0), lambda: side("b", 2.0))
    assert samples == [[1.0] * 3, [2.0] * 3]
    assert said == ["a", "b", *"ab", *"ba", *"ab"]  # the first turn is not counted


def test_what_is_written_names_the_kind_of_machine_and_not_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    measure.write("copy", [Row("copy", 1.0, 2.0, "s", 0.5, samples={"ours": [1.0]})])
    body = json.loads((tmp_path / "results" / "copy.json").read_text())
    assert body["rows"][0]["ratio"] == 0.5 and body["rows"][0]["met"] and body["machine"]["cores"] >= 1
    assert "copy: 1 / 2 s" in (tmp_path / "results" / "copy.txt").read_text()
    assert socket.gethostname() not in (tmp_path / "results" / "copy.txt").read_text()
