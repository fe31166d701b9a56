"""runner/domain/terminal.py: what of a box's bytes may reach the terminal."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.domain.terminal import TerminalFilter, clean, clean_lines

ALLOWED = re.compile("(?:[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\x1b\\[[0-9;:]*m)*")


def shown(*chunks: bytes) -> str:
    one = TerminalFilter()
    return "".join(one.feed(chunk) for chunk in chunks) + one.finish()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"plain\ttext\r\n", "plain\ttext\r\n"),
        (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        (b"a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        (b"a\x1b]0;title\x1b\\b", "ab"),
        (b"a\x1bPq#0;2;0\x1b\\b", "ab"),
        (b"a\x1b_app\x1b\\b\x1b^pm\x1b\\c\x1bXsos\x1b\\d", "abcd"),
        (b"a\x1b[2J\x1b[Hb", "ab"),
        (b"a\x1b[?1049hb\x1b[6n", "ab"),
        (b"a\xc2\x9b31mb", "a\x1b[31mb"),
        (b"a\xc2\x9d52;c;x\x07b", "ab"),
        (b"a\x1bcb", "ab"),
        (b"a\x07\x08\x7f\x00b", "ab"),
        (b"a\x1b(0b", "ab"),
        ("schön → ✓".encode(), "schön → ✓"),
        (b"\xff\xfe", "��"),
        ("evil \u202e reversed".encode(), "evil  reversed"),
    ],
)
def test_only_text_and_colours_pass(raw: bytes, expected: str) -> None:
    assert shown(raw) == expected


@given(st.binary(max_size=200), st.data())
def test_where_the_bytes_are_split_makes_no_difference(raw: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    edges = [0, *cuts, len(raw)]
    pieces = [raw[start:stop] for start, stop in itertools.pairwise(edges)]
    assert shown(*pieces) == shown(raw)


@given(st.binary(max_size=400))
def test_no_bytes_whatever_get_another_control_sequence_through(raw: bytes) -> None:
    assert ALLOWED.fullmatch(shown(raw))


def test_an_escape_is_recognised_byte_by_byte() -> None:
    raw = b"a\x1b]52;c;ZXZpbA==\x1b\\b\xf0\x9f\x9a\x80"
    assert shown(*(raw[at : at + 1] for at in range(len(raw)))) == "ab🚀"


def test_a_name_is_one_line_without_colour_and_bounded() -> None:
    assert clean("RTX\x1b[31m 4090\x1b]0;x\x07\nnext") == "RTX 4090 next"
    assert len(clean("x" * 10_000, 50)) == 50


def test_of_several_lines_the_newest_are_kept() -> None:
    text = clean_lines("\n".join(f"line {number}" for number in range(1000)), 100)
    assert text.endswith("line 999") and len(text) <= 100
