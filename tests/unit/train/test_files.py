"""Small files: complete under their name or not there, and read with one line of error."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from remote_payload.train.errors import InputError
from remote_payload.train.files import (
    read_json_object,
    sha256_and_size,
    shown_path,
    sync_file,
    write_json,
    write_json_lines,
    write_text,
)


def test_files_are_complete_under_their_name(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    write_text(tmp_path / "b.md", "text")
    write_json_lines(tmp_path / "c.jsonl", ({"ä": number} for number in (1, 2)))
    assert (tmp_path / "a.json").read_text() == '{\n  "ä": [\n    1,\n    null\n  ]\n}\n'
    assert (tmp_path / "c.jsonl").read_text() == '{"ä": 1}\n{"ä": 2}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert "ä" in (tmp_path / "a.json").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.md", "c.jsonl"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("[1]", "expected an object"),
        ("\xff", "codec can't decode"),
    ],
)
def test_what_is_no_json_object_is_named_with_its_file(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        read_json_object(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_digest_is_of_as_many_bytes_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 5000)  # more than one piece
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256_and_size(path) == (expected, 1_280_000)
    assert sync_file(path) == expected


def test_a_path_is_shown_relative_to_here_or_by_its_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path("data/x") == shown_path(str(tmp_path / "data" / "x")) == "data/x"
    assert shown_path("/home/somebody/data/x.jsonl") == "x.jsonl"
