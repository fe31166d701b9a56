"""Rows of JSON Lines, CSV and parquet files of any size, in order, and in windows that bound the memory.

A row is read first and understood later (``Row.record``), so that rows that are done already are passed over quickly, and that a row which
cannot be understood does not end the reading of those after it. Windows follow from the files alone: the same rows are always together.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_payload.train.data.records import BOM, Record, is_json_lines, parse_line, read_json_array
from remote_payload.train.errors import InputError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
WINDOW_BYTES = 8 << 20
PARQUET_ROWS = 1024  # converted to Python at once


@dataclass(frozen=True)
class Row:
    """One row. ``size`` is about its length in bytes, ``end`` where in its file it ends (bytes; estimated for parquet and arrays).

    ``understand`` gives its fields, or raises InputError with file and line.
    """

    file: str
    line: int
    size: int
    end: int
    understand: Callable[[], dict[str, Any]]

    def record(self) -> Record:
        """Its fields by name. Raises InputError with file and line for a row that has none."""
        return Record(self.understand(), self.file, self.line)


@dataclass(frozen=True)
class Window:
    """Rows that are predicted together; ``done`` are the bytes of all files up to its end."""

    number: int
    rows: list[Row]
    done: int


def windows(files: list[str], rows: int) -> Iterator[Window]:
    """All rows of the files, in windows of at most ``rows`` rows and about WINDOW_BYTES; numbered from 0."""
    sizes = [os.path.getsize(file) for file in files]
    number = 0
    held: list[Row] = []
    before = 0
    size = 0
    for file, total in zip(files, sizes, strict=True):
        for row in read_rows(file):
            held.append(row)
            size += row.size
            if len(held) == rows or size >= WINDOW_BYTES:
                yield Window(number, held, before + row.end)
                number, held, size = number + 1, [], 0
        before += total
    if held:
        yield Window(number, held, before)


def read_rows(file: str) -> Iterator[Row]:
    """The rows of one file. Raises InputError for a file that cannot be read at all, whatever its rows hold."""
    suffix = Path(file).suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet(file)
        elif suffix == ".csv":
            yield from _csv(file)
        elif suffix == ".json" and not is_json_lines(file):
            yield from _array(file)
        else:
            yield from _json_lines(file)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None


def _json_lines(file: str) -> Iterator[Row]:
    with open(file, "rb") as source:
        end = 0
        for number, raw in enumerate(source, start=1):
            body = raw.removeprefix(BOM) if end == 0 else raw
            end += len(raw)
            if body.strip():
                yield Row(file, number, len(raw), end, _later(parse_line, body, file, number))


def _array(file: str) -> Iterator[Row]:
    """A JSON array has to be read whole."""
    size = os.path.getsize(file)
    for record in read_json_array(file):
        yield Row(file, record.line, len(str(record.value)), size, _later(dict, record.value))


def _csv(file: str) -> Iterator[Row]:
    """``line`` is the line that the row begins on. Bytes that are no UTF-8 are found in their own row."""
    csv.field_size_limit(1 << 30)
    with open(file, encoding="utf-8", errors="surrogateescape", newline="") as source:
        end = 0

        def lines() -> Iterator[str]:
            nonlocal end
            for line in source:
                body = line.removeprefix("\ufeff") if end == 0 else line
                end += len(line.encode("utf-8", "surrogateescape"))
                yield body

        reader = csv.reader(lines())
        try:
            names = next(reader, [])
            if len(set(names)) < len(names):
                raise InputError(f"{file}:1: two columns have the same name ({', '.join(names)})")
            line, start = reader.line_num + 1, end
            for values in reader:
                if values:
                    yield Row(file, line, end - start, end, _later(_fields, names, values, f"{file}:{line}"))
                line, start = reader.line_num + 1, end
        except csv.Error as error:
            raise InputError(f"{file}:{reader.line_num}: not valid CSV: {error}") from None


def _fields(names: list[str], values: list[str], place: str) -> dict[str, Any]:
    if len(values) != len(names):
        raise InputError(f"{place}: {len(values)} fields, and the first line names {len(names)} columns")
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        raise InputError(f"{place}: not UTF-8") from None
    return dict(zip(names, values, strict=True))


def _parquet(file: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    size, number = os.path.getsize(file), 0
    try:
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False) as table:
            total = table.metadata.num_rows
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, use_threads=False):
                about = batch.nbytes // max(batch.num_rows, 1)
                for value in batch.to_pylist():
                    number += 1
                    yield Row(file, number, about, size * number // total, _later(dict, value))
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # a broken file breaks in many ways
        raise InputError(f"{file}: not readable as parquet after row {number}: {error}") from None


def _later(call: Callable[..., dict[str, Any]], *arguments: Any) -> Callable[[], dict[str, Any]]:
    return lambda: call(*arguments)
