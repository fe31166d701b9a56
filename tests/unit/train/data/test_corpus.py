"""Documents come out of text, JSON Lines and parquet as they were written, in pieces, and a bad line has a place."""

import json

import pytest

from remote_payload.train.data import corpus
from remote_payload.train.data.corpus import Piece, corpus_files, read_pieces
from remote_payload.train.data.facts import describe_files
from remote_payload.train.errors import InputError


def write(folder, name, text) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def whole(pieces) -> list[str]:
    """The documents, their pieces joined again."""
    documents, parts = [], []
    for piece in pieces:
        parts.append(piece.text)
        if piece.last:
            documents.append("".join(parts))
            parts = []
    assert not parts, "a document without an end"
    return documents


@pytest.mark.parametrize(
    ("boundary", "documents"),
    [
        ("paragraph", ["one\ntwo\n", "three\n"]),
        ("line", ["one", "two", "three"]),
        ("file", ["one\ntwo\n\n  \nthree\n"]),
    ],
)
def test_a_document_ends_where_the_boundary_says(tmp_path, boundary, documents):
    file = write(tmp_path, "a.txt", "one\ntwo\n\n  \nthree\n")
    assert whole(read_pieces([file], boundary)) == documents


def test_a_document_ends_with_its_file(tmp_path):
    files = [write(tmp_path, "a.txt", "one"), write(tmp_path, "b.txt", "two")]
    assert whole(read_pieces(files)) == ["one", "two"]


def test_json_lines_and_text_go_together_and_folders_are_searched(tmp_path):
    write(tmp_path, "a.txt", "one")
    write(tmp_path, "b.jsonl", json.dumps({"body": "two\n\nstill two"}) + "\n")
    write(tmp_path, "ignored.pdf", "%PDF")
    files = corpus_files(str(tmp_path))
    assert whole(read_pieces(files, text_field="body")) == ["one", "two\n\nstill two"]


def test_parquet_documents_are_read(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    assert whole(read_pieces(corpus_files(str(tmp_path)))) == ["one", "two"]


@pytest.mark.parametrize("boundary", corpus.BOUNDARIES)
def test_a_long_document_comes_in_pieces_and_loses_nothing(tmp_path, monkeypatch, boundary):
    monkeypatch.setattr(corpus, "PIECE", 10)
    text = "été àlong line without an end, " * 5 + "\nand another line"
    pieces = list(read_pieces([write(tmp_path, "a.txt", text)], boundary))
    assert max(len(piece.text) for piece in pieces) <= 21
    if boundary != "line":
        assert whole(pieces) == [text]


def test_a_long_json_document_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", 3)
    file = write(tmp_path, "a.jsonl", '{"text": "abcdefgh"}\n{"text": "xyz"}\n')
    assert list(read_pieces([file])) == [
        Piece("abc", False),
        Piece("def", False),
        Piece("gh", True),
        Piece("xyz", True),
    ]


def test_what_is_not_utf_8_has_a_file_and_a_line(tmp_path):
    file = write(tmp_path, "a.txt", b"fine\nalso fine\nbad \xff here\n" + b"x" * 20_000)
    with pytest.raises(InputError, match=r"a\.txt:3: not UTF-8"):
        list(read_pieces([file]))


def test_a_record_without_the_field_has_a_file_and_a_line(tmp_path):
    file = write(tmp_path, "a.jsonl", '{"text": "x"}\n{"body": "y"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: no field 'text'"):
        list(read_pieces([file]))


def test_a_corpus_that_is_not_there_names_the_setting(tmp_path):
    with pytest.raises(InputError, match=r"settings\.corpus: .*nothing\.txt"):
        corpus_files(str(tmp_path / "nothing.txt"))


def test_what_describes_a_file_changes_with_one_byte(tmp_path):
    file = write(tmp_path, "a.txt", "one")
    before = describe_files([file])
    assert before == describe_files([file])
    write(tmp_path, "a.txt", "onf")
    assert before != describe_files([file])
