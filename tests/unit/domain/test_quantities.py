"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from runner.domain.quantities import format_duration, format_size, parse_duration, parse_size, pluralise


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        ("20GiB", 20 << 30),
        ("1.5 TB", 1_500_000_000_000),
        ("512MB", 512_000_000),
        ("1kib", 1024),
        ("7B", 7),
    ],
)
def test_a_size_is_read_in_its_unit(written: object, bytes_: int) -> None:
    assert parse_size(written) == bytes_


@pytest.mark.parametrize(
    "written",
    [20, 1 << 30, 2.5, True, None, "", "GiB", "20", "20G", "-1GiB", "1e3GB", "20 GiB GiB", "９GiB", "1" * 20 + "GB"],
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"such as|size"):
        parse_size(written)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("12h", 43200), ("1h30m", 5400), ("2d", 172800), ("45s", 45), ("1.5h", 5400), (" 1h 5m ", 3900)],
)
def test_a_duration_is_read_in_its_units(written: str, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", [12, 1.5, True, None, "", "12", "h", "1h30", "-1h", "0s", "1h or so", "1" * 12 + "h", "999999999d"]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"such as"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (7_900_000, "7.9 MB"),
        (20 << 30, "21.5 GB"),
        (3.2e15, "3200.0 TB"),
    ],
)
def test_a_size_is_shown_in_decimal_units(count: float | None, shown: str) -> None:
    assert format_size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "?"), (4.21, "4.2s"), (59.94, "59.9s"), (200, "3m 20s"), (7500, "2h 05m")]
)
def test_a_duration_is_shown_in_its_largest_units(seconds: float | None, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_a_number_is_shown_with_its_noun() -> None:
    assert [pluralise(number, "file") for number in (0, 1, 1153)] == ["0 files", "1 file", "1,153 files"]
