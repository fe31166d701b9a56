"""runner/domain/answers/reading.py: typed fields out of JSON that somebody else wrote."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.domain.answers import reading
from runner.domain.answers.reading import Fields, Impossible

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.integers(min_value=10**400, max_value=10**4000)
    | st.just("\ud800\x1b[2J"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
READERS = {
    "text": reading.text,
    "whole": reading.whole,
    "time_in_seconds": reading.time_in_seconds,
    "finite_number": reading.finite_number,
    "boolean": reading.boolean,
    "path": reading.absolute_path,
    "word": reading.one_of(("a", "b")),
    "list": reading.list_of(reading.text, 3),
    "mapping": reading.mapping_of(reading.whole, 3),
    "optional": reading.optional(reading.whole),
    "object": Fields,
}


@given(st.sampled_from(sorted(READERS)), ANYTHING)
def test_any_value_is_taken_or_refused_in_one_short_sentence(name: str, value: Any) -> None:
    try:
        READERS[name](value)
    except Impossible as error:
        assert len(str(error)) < 500 and not set(str(error)) & set("\x1b\x9b")
        str(error).encode()


@given(ANYTHING)
def test_what_may_be_anything_is_harmless_to_print_keep_and_calculate_with(value: Any) -> None:
    safe = reading.harmless(value)
    text = json.dumps(safe, allow_nan=False, ensure_ascii=False)
    text.encode()  # which half of a surrogate pair would refuse
    assert "\\u001b" not in text
    assert not isinstance(safe, int | float) or f"{safe / 1000:.4g}"


def test_a_field_is_named_by_its_path() -> None:
    def run(value: object) -> int:
        return Fields(value)("pid", reading.whole)

    with pytest.raises(Impossible) as refused:
        Fields({"runs": [{"pid": 1}, {"pid": "two"}]})("runs", reading.list_of(run))
    assert str(refused.value) == "runs[1].pid: 'two' is not a whole number from 0 to 4611686018427387904"


@pytest.mark.parametrize("value", [True, 1.0, -1, 1 << 63, "1", None, [1]])
def test_whole_numbers_are_nothing_else(value: object) -> None:
    with pytest.raises(Impossible):
        reading.whole(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 10**400, False, "1"])
def test_moments_are_numbers_that_a_clock_can_show(value: object) -> None:
    with pytest.raises(Impossible):
        reading.time_in_seconds(value)


def test_text_loses_control_sequences_and_keeps_its_lines() -> None:
    assert reading.text("one\x1b]0;x\x07\ntwo\ud800\x9b5n") == "one\ntwo?"
    assert len(reading.text("x" * 10**6)) == reading.MAX_TEXT


def test_a_pattern_has_no_second_line() -> None:
    with pytest.raises(Impossible):
        reading.matching(re.compile("[a-z]+"))("abc\n")
