"""The documents of a text corpus, streamed from plain text, JSON Lines and parquet, with at most one piece in memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from remote_payload.train.data.records import SUFFIXES, find_files, read_records
from remote_payload.train.errors import InputError

TEXT_SUFFIXES = (".txt", ".text", ".md")
PIECE = 1 << 20  # characters; a longer document comes in several pieces
BOUNDARIES = ("paragraph", "line", "file")


class Piece(NamedTuple):
    """Text of one document; ``last`` is True for the piece that ends it."""

    text: str
    last: bool


def corpus_files(patterns: str | list[str], setting: str = "corpus") -> list[str]:
    """The files of the corpus, sorted. Raises InputError naming the setting when a pattern matches none."""
    return find_files(patterns, setting, TEXT_SUFFIXES + SUFFIXES)


def read_pieces(files: Iterable[str], boundary: str = "paragraph", text_field: str = "text") -> Iterator[Piece]:
    """All documents of all files in order, in pieces of about a megabyte at most.

    In plain text a document ends at a blank line (``paragraph``), at every line (``line``) or with its file (``file``); a
    record of the other formats is a document. Raises InputError with file and line for a text that is not UTF-8 and for a record
    without the field.
    """
    for file in files:
        if file.endswith(TEXT_SUFFIXES):
            yield from _pieces_of_text(file, boundary)
        else:
            for record in read_records(file):
                text = record.field(text_field)
                starts = range(0, len(text), PIECE)
                yield from (Piece(text[start : start + PIECE], start + PIECE >= len(text)) for start in starts)


def texts(pieces: Iterable[Piece]) -> Iterator[str]:
    """The text of each piece, for the training of a tokenizer."""
    return (piece.text for piece in pieces)


def _pieces_of_text(file: str, boundary: str) -> Iterator[Piece]:
    held: list[str] = []
    size = 0
    for line in _lines(file):
        if boundary == "line":
            if line.strip():
                yield Piece(line.rstrip("\r\n"), True)
        elif boundary == "paragraph" and not line.strip():
            if size:
                yield Piece("".join(held), True)
            held, size = [], 0
        else:
            if size > PIECE:
                yield Piece("".join(held), False)
                held, size = [], 0
            held.append(line)
            size += len(line)
    if size:
        yield Piece("".join(held), True)


def _lines(file: str) -> Iterator[str]:
    """The lines of a file; a line of more than PIECE characters comes in several parts."""
    try:
        with open(file, encoding="utf-8-sig") as source:
            while line := source.readline(PIECE):
                yield line
    except UnicodeDecodeError:
        raise InputError(f"{file}:{_first_bad_line(file)}: not UTF-8; convert the file, or leave it out") from None


def _first_bad_line(file: str) -> int:
    """The number of the first line that is not UTF-8. The text reader decodes ahead, so its error does not tell."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(file, "rb") as source:
        for number, raw in enumerate(source, start=1):
            try:
                decoder.decode(raw)
            except UnicodeDecodeError:
                return number
        return number
