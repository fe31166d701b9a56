"""The run's events file."""

import json

from remote_payload.agent.run import events


def write(path, *lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def test_the_last_of_each_type_is_found_whatever_lies_between(tmp_path):
    path = tmp_path / "events.jsonl"
    write(
        path,
        b'{"t":1,"type":"step","step":1}',
        b'{"t":2,"type":"eval","metrics":{"type":"nested","f1":0.5}}',
        b'{"t":3,"type":"step","step":2,"loss":NaN}',
        b"not json",
        b'["type"]',
        b'{"t":4,"type":7}',
        b"\xff\xfe" * 20,
        b'{"t":5,"type":"step","step":3,"note":"' + b"x" * 70_000 + b'"}',
        b'{"t":6,"type":"step","st',
    )
    found = events.last(str(path))
    assert found["step"]["step"] == 2 and found["eval"]["metrics"]["f1"] == 0.5
    assert set(found) == {"step", "eval"}


def test_a_file_of_many_types_and_no_file_are_both_fine(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, *[b'{"type":"t%d"}' % n for n in range(1000)])
    assert len(events.last(str(path))) == events.MAX_TYPES
    assert events.last(str(tmp_path / "none")) == {}


def test_an_event_is_one_line_at_the_end(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, b'{"type":"step"}')
    events.append(str(path), "flag", name="x", message="two\nlines")
    lines = path.read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[1])["message"] == "two\nlines"
    assert json.loads(lines[1])["t"] > 1e9


def test_an_event_that_cannot_be_written_or_is_too_long_costs_nothing(tmp_path):
    events.append(str(tmp_path / "gone" / "events.jsonl"), "flag", name="x")
    path = tmp_path / "events.jsonl"
    path.touch()
    events.append(str(path), "flag", message="x" * 70_000)
    assert path.read_bytes() == b""
