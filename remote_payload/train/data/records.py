"""Records from JSON Lines, JSON and parquet files. Values keep their types, also mixed and nested ones."""

from __future__ import annotations

import glob
import json
import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from remote_payload.train.data.facts import DataFile, describe_file
from remote_payload.train.errors import InputError

BOM = b"\xef\xbb\xbf"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # as JSON escapes it; UTF-8 text cannot contain one

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """One example and its place in a file.

    ``line`` counts from 1 (a parquet file's row, a JSON array's item); ``offset`` is in bytes, for JSON Lines.
    """

    value: dict[str, Any]
    file: str
    line: int
    offset: int = 0

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def field(self, name: str, kind: type | tuple[type, ...] = str) -> Any:
        """The value under ``name``. Raises InputError with file and line when it is missing or of another type."""
        if name not in self.value:
            found = ", ".join(map(str, self.value)) or "nothing"
            raise InputError(f"{self.place}: no field {name!r} (the record has {found})")
        value = self.value[name]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not {bool, object} & set(kinds)):
            expected = " or ".join(each.__name__ for each in kinds)
            raise InputError(f"{self.place}: field {name!r} is {type(value).__name__}, expected {expected}")
        return value


def _text_of(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 ({error.reason} at byte {error.start})") from None


@contextmanager
def _explained(file: str, place: str) -> Iterator[None]:
    """Turns every error of reading JSON into an InputError with its place: ``place``, or file, line and column."""
    try:
        yield
    except json.JSONDecodeError as error:
        where = f"{file}:{error.lineno}:{error.colno}" if place == file else place
        column = "" if place == file else f" (column {error.colno})"
        raise InputError(f"{where}: not valid JSON: {error.msg}{column}") from None
    except RecursionError:
        raise InputError(f"{place}: nested too deeply to be read") from None
    except ValueError:  # Python's own limit on the length of numbers, which is no JSONDecodeError
        raise InputError(f"{place}: a number of over 4,300 digits") from None


def check_text(value: Any, place: str) -> None:
    """Raises InputError when half of a surrogate pair is somewhere in a value: tokenizers fail on it, UTF-8 cannot encode it."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        bad = error.object[error.start]
        raise InputError(
            f"{place}: {bad!a} is half of a surrogate pair and no character; was the text truncated there?"
        ) from None


def find_files(patterns: str | Sequence[str], setting: str = "data", suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Data files named by paths, folders (searched recursively for ``suffixes``) or globs; sorted, each file once.

    Raises InputError naming ``setting`` for a pattern that matches no file.
    """
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = _matches(pattern, suffixes)
        if not matches:
            raise InputError(
                f"settings.{setting}: {pattern!r} matches no {', '.join(suffixes)} file below {os.getcwd()}"
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def _matches(pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    if os.path.isfile(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        inside = Path(pattern).rglob("*")
        return sorted(str(path) for path in inside if path.suffix in suffixes and path.is_file())
    return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))


def read_all(files: Iterable[str]) -> tuple[list[Record], list[DataFile]]:
    """All records of all files in order, and each file's sha256, size and rows for the record."""
    records: list[Record] = []
    facts: list[DataFile] = []
    for file in files:
        before = len(records)
        records.extend(read_records(file))
        facts.append(describe_file(file, rows=len(records) - before))
    return records, facts


def read_records(file: str, start: int = 0) -> Iterator[Record]:
    """The records of one file, streamed (a ``.json`` array is read whole).

    ``start`` is the byte offset of a record of a JSON Lines file from which to go on; its lines then count from there.
    Raises InputError with file and line for a record that cannot be parsed or is not an object.
    """
    suffix = Path(file).suffix
    if suffix == ".parquet":
        return _read_parquet(file)
    if suffix == ".json" and not is_json_lines(file):
        return read_json_array(file)
    return _read_json_lines(file, start)


def read_json(file: str) -> Any:
    """One JSON document. Raises InputError with file, line and column."""
    try:
        raw = Path(file).read_bytes()
    except OSError as error:
        raise InputError(
            f"{file}: {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}"
        ) from None
    with _explained(file, file):
        return json.loads(_text_of(raw.removeprefix(BOM), file))


def split(
    items: Sequence[T], fraction: float, seed: int, setting: str = "validation_fraction"
) -> tuple[list[T], list[T]]:
    """``items`` in two parts, with a random ``fraction`` of them in the second. Both parts keep the given order.

    The same seed splits the same way on every machine. Raises InputError naming ``setting`` when a part would be empty.
    """
    count = round(len(items) * fraction)
    if not 0 < count < len(items):
        problem = f"{fraction} of {len(items)} examples leaves an empty split; give more data or another fraction"
        raise InputError(f"settings.{setting}: {problem}")
    held_out = set(random.Random(seed).sample(range(len(items)), count))
    first = [item for index, item in enumerate(items) if index not in held_out]
    second = [item for index, item in enumerate(items) if index in held_out]
    return first, second


def _read_json_lines(file: str, start: int) -> Iterator[Record]:
    with open(file, "rb") as source:
        source.seek(start)
        offset = start
        for number, raw in enumerate(source, start=1):
            body = raw.removeprefix(BOM) if offset == 0 else raw
            if body.strip():
                yield Record(parse_line(body, file, number), file, number, offset)
            offset += len(raw)


def parse_line(raw: bytes, file: str, number: int) -> dict[str, Any]:
    """The record in a line of JSON Lines. Raises InputError with file and line."""
    place = f"{file}:{number}"
    with _explained(file, place):
        value = json.loads(_text_of(raw, place))
    return _checked_object(value, place, SURROGATE.search(raw) is not None)


def _checked_object(value: Any, place: str, doubtful: bool = True) -> dict[str, Any]:
    """The record, if it is an object. With ``doubtful`` it is also searched for halves of surrogate pairs."""
    if not isinstance(value, dict):
        raise InputError(f"{place}: a record must be a JSON object, this is {type(value).__name__}")
    if doubtful:
        check_text(value, place)
    return value


def is_json_lines(file: str) -> bool:
    """Whether a ``.json`` file holds one object per line, as many published data sets do."""
    with open(file, "rb") as source:
        first = next((line for line in source if line.strip()), b"")
        second = next((line for line in source if line.strip()), b"")
    return first.lstrip().startswith(b"{") and first.rstrip().endswith(b"}") and second.lstrip().startswith(b"{")


def read_json_array(file: str) -> Iterator[Record]:
    value = read_json(file)
    if not isinstance(value, list):
        raise InputError(
            f"{file}: expected a JSON array of objects or one object per line, found {type(value).__name__}"
        )
    for number, item in enumerate(value, start=1):
        yield Record(_checked_object(item, f"{file}: item {number}"), file, number)


def _read_parquet(file: str) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            for value in batch.to_pylist():
                number += 1
                yield Record(value, file, number)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # a broken file breaks in many ways
        raise InputError(f"{file}: not readable as parquet after row {number}: {error}") from None
