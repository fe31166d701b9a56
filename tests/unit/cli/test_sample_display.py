"""What ``gpurun sample`` shows: two texts beside each other are whole and not wider than the terminal; a pipe gets them one by one."""

from __future__ import annotations

import random

import pytest
from rich.cells import cell_len

from remote_payload.recipes.answers import Answer, Answered, Classified, Loaded
from runner.cli.sample_display import lines_of, show
from runner.domain.terminal import clean_lines
from tests.support.trials import trials

LOADED = Loaded("step-000100", "causal_lm", "cpu")
PARTS = [
    "ship",
    "a",
    "naïve",
    "日本語のテキスト",
    "🙂",
    "\n",
    "\n\n",
    "\t",
    "[bold]x[/bold]",
    "x" * 90,
    "\x1b[2Jgone",
    ":smile:",
    "(",
    "\r",
]


def answers(texts: list[tuple[str, str]]) -> Answered:
    """A pair of the base's text and the model's for each sample."""
    found = []
    for number, (base, tuned) in enumerate(texts, 1):
        found += [Answer(True, number, base, 1, 0.1, True), Answer(False, number, tuned, 1, 0.1, True)]
    return Answered("Why?", tuple(found))


def visible(text: str) -> str:
    return "".join(clean_lines(text, 100_000, 100_000).split())


@trials("side by side", quick=20, full=400)
def test_two_columns_hold_both_texts_whole_within_the_width(chance: random.Random) -> None:
    texts = [
        (
            " ".join(chance.choices(PARTS, k=chance.randint(0, 30))),
            " ".join(chance.choices(PARTS, k=chance.randint(0, 30))),
        )
        for _ in range(chance.randint(1, 3))
    ]
    width = chance.choice([60, 80, 81, 200])
    title, rule, *lines = lines_of(answers(texts), LOADED, width)
    assert all(cell_len(line) <= width for line in (title, rule, *lines))
    assert [name.strip() for name in title.split("│")] == ["base", "step-000100"]
    for place in (0, 1):
        column = "".join(cells[place] for line in lines if len(cells := (line + " ").split("│")) == 2)
        assert "".join(column.split()) == visible("".join(pair[place] for pair in texts))


def test_a_long_paragraph_is_not_cut() -> None:
    text = "word " * 2000 + "end."
    (line,) = lines_of(Answered("Why?", (Answer(False, 1, text, 1, 0.1, True),)), LOADED, None)
    assert line == text


def test_a_pipe_and_a_narrow_terminal_get_one_below_the_other() -> None:
    for width in (None, 59):
        assert lines_of(answers([("No.", "Yes.\nOh yes.")]), LOADED, width) == [
            "-- base",
            "No.",
            "-- step-000100",
            "Yes.\nOh yes.",
        ]
        assert lines_of(answers([("a", "b"), ("c", "d")]), LOADED, width) == [
            "-- base, sample 1", "a", "-- step-000100, sample 1", "b", "-- base, sample 2", "c", "-- step-000100, sample 2", "d",
        ]  # fmt: skip


def test_a_single_answer_stands_alone_and_several_have_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    one = Answered("Why?", (Answer(False, 1, "So.\x1b]52;c;x\x07", 1, 0.1, True),))
    show(one, LOADED, echo=True)
    show(one, LOADED, echo=False)
    assert capsys.readouterr().out == "Why?\nSo.\n\nSo.\n\n"
    two = Answered("Why?", (*one.answers, Answer(False, 2, "No.", 1, 0.1, True)))
    for width in (None, 80):
        assert lines_of(two, LOADED, width)[::2] == ["-- sample 1", "-- sample 2"]


def test_classes_come_by_probability_with_the_threshold() -> None:
    shares = {str(number): 0.05 for number in range(14)} | {"11": 0.35}
    found = Classified("11", 0.35, shares, True, 0.45, True, 0.1)
    lines = lines_of(Answered("x", classified=found), Loaded("best", "classifier", "cpu", threshold=10), 80)
    assert lines[0] == "11  0.3500" and lines[1] == "0   0.0500" and lines[12] == "and 2 more classes"
    assert lines[13:] == [
        "positive: 0.4500 for classes of at least 10 (binary_threshold)",
        "the text is longer than the model takes: its end was not read",
    ]
    few = Classified("A", 0.75, {"B": 0.25, "A": 0.75}, None, None, False, 0.1)
    assert lines_of(Answered("x", classified=few), Loaded("best", "classifier", "cpu"), 80) == [
        "A  0.7500",
        "B  0.2500",
    ]
