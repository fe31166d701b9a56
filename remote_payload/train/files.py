"""Small files: written so that they are complete under their name or not there, read with one line of error, and hashed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from remote_payload.train.errors import InputError


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON document. It gets its name only when it is complete and on disk."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes JSON Lines, one value a line. The file gets its name only when it is complete and on disk."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text. The file gets its name only when it is complete and on disk."""
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """A small JSON document that is an object. Raises InputError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object")
    return value


def shown_path(path: str) -> str:
    """A path as others may see it: relative to the working directory if it is below it, else its last part alone."""
    absolute = Path(path).absolute()
    return absolute.relative_to(Path.cwd()).as_posix() if absolute.is_relative_to(Path.cwd()) else absolute.name


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits. The file is read in pieces, so it may be larger than memory."""
    return sha256_and_size(path)[0]


def sha256_and_size(path: Path) -> tuple[str, int]:
    """The sha256 of a file and the number of bytes that were hashed."""
    with path.open("rb") as file:
        return _digest(file), file.tell()


def sync_file(path: Path, sha256: str | None = None) -> str:
    """Fsyncs a file and returns its sha256, read back from the file unless it is known already."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return sha256 or _digest(file)


def sync_folder(path: Path) -> None:
    """Fsyncs a folder, so that the names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(file: BinaryIO) -> str:
    sha256 = hashlib.sha256()  # hashlib.file_digest is not in Python 3.10
    while piece := file.read(1 << 20):
        sha256.update(piece)
    return sha256.hexdigest()
