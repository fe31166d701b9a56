"""Reading a growing file to the byte."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_payload.agent.run import tail
from remote_payload.agent.run.quota import LogQuota
from remote_payload.agent.run.tail import Tail, last_lines


class Reader:
    """What a Tail sent and told."""

    def __init__(self, path, offset=0, known="", lines=None):
        self.sent, self.told = [], []
        self.tail = Tail(
            str(path), offset, known, lambda at, data: self.sent.append((at, data)), self.told.append, lines
        )

    def read(self):
        self.sent.clear()
        while self.tail.pump():
            pass
        return b"".join(data for _, data in self.sent)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


def test_what_is_written_comes_once_with_its_offset(path):
    path.write_bytes(b"one")
    reader = Reader(path)
    assert reader.read() == b"one" and reader.sent == [(0, b"one")]
    with open(path, "ab") as file:
        file.write(b"two")
    assert reader.read() == b"two" and reader.sent == [(3, b"two")]
    assert reader.read() == b""
    assert [sorted(said) for said in reader.told] == [["generation", "offset", "size"]]


def test_a_file_that_is_not_there_yet_is_awaited(path):
    reader = Reader(path)
    assert reader.read() == b""
    path.write_bytes(b"now")
    assert reader.read() == b"now"


def test_the_same_generation_goes_on_and_another_starts_again(path):
    path.write_bytes(b"0123456789")
    first = Reader(path)
    first.read()
    again = Reader(path, 4, first.tail.generation)
    assert again.read() == b"456789" and "change" not in again.told[0]
    other = Reader(path, 4, "other")
    assert other.read() == b"0123456789" and other.told[0]["change"] == "replaced"


def test_an_offset_beyond_the_end_means_that_the_file_was_cut(path):
    path.write_bytes(b"short")
    reader = Reader(path, 100)
    assert reader.read() == b"short" and reader.told[0]["change"] == "truncated"


def test_the_end_of_the_old_file_is_read_before_the_new_one(path, tmp_path):
    path.write_bytes(b"old ")
    reader = Reader(path)
    reader.read()
    with open(path, "ab") as file:
        file.write(b"end")
        (tmp_path / "new").write_bytes(b"new")
        os.rename(tmp_path / "new", path)
    assert reader.read() == b"end"
    assert reader.read() == b"new" and reader.told[-1]["change"] == "replaced"


def test_a_file_that_is_removed_is_said_once(path):
    path.write_bytes(b"x")
    reader = Reader(path)
    reader.read()
    path.unlink()
    reader.read()
    reader.read()
    assert [said.get("change") for said in reader.told] == [None, "deleted"]


def test_zeros_that_were_written_are_data_and_freed_blocks_are_a_gap(path):
    path.write_bytes(b"a" * (1 << 20) + b"\0" * (1 << 20) + b"b" * 1000)
    assert Reader(path).read() == path.read_bytes()
    quota = LogQuota(str(path), 1 << 20)
    assert quota.enforce() is None
    reader = Reader(path)
    data = reader.read()
    (gap,) = [said for said in reader.told if said.get("change") == "gap"]
    assert gap["offset"] == 0 and gap["bytes"] % (1 << 16) == 0 and gap["bytes"] > 1 << 20
    assert gap["bytes"] + len(data) == path.stat().st_size
    assert path.stat().st_blocks * 512 <= 1 << 20
    assert data.endswith(b"\0" * 1000 + b"b" * 1000)


def test_a_log_within_its_quota_is_left_alone(path):
    path.write_bytes(b"a" * 100_000)
    LogQuota(str(path), 1 << 20).enforce()
    assert path.read_bytes() == b"a" * 100_000


def test_a_filesystem_without_holes_is_said_once(path, monkeypatch):
    path.write_bytes(b"a" * 300_000)
    monkeypatch.setattr("remote_payload.agent.run.quota._punch", lambda descriptor, end: False)
    quota = LogQuota(str(path), 1 << 16)
    assert "cannot free" in quota.enforce()
    assert quota.enforce() is None


@given(st.binary(max_size=2000), st.integers(0, 60))
def test_the_last_lines_are_those_that_split_gives(data, count):
    descriptor = os.memfd_create("log")
    try:
        os.write(descriptor, data)
        lines = data.split(b"\n")
        lines = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
        begin = last_lines(descriptor, len(data), count)
        assert data[begin:] == b"".join(lines[len(lines) - min(count, len(lines)) :])
    finally:
        os.close(descriptor)


def test_a_huge_line_is_not_searched_to_its_beginning():
    descriptor = os.memfd_create("log")
    os.truncate(descriptor, 100 << 20)
    assert last_lines(descriptor, 100 << 20, 5) == (100 << 20) - tail.LOOK_BACK
    os.close(descriptor)
