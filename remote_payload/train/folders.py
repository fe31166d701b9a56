"""Folders that are complete or not there. Checkpoints and models are written beside their final name and renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

MANIFEST = "manifest.json"
# What writing raises where there is no room: safetensors has an error of its own for it, which is no OSError.
DISK_ERRORS = (OSError, SafetensorError)


@contextmanager
def complete_folder(final: Path, **facts: Any) -> Iterator[Path]:
    """Gives a temporary folder to fill; on success fsyncs it, writes its manifest last, and renames it to ``final``.

    A folder that stands there already is replaced. After an exception nothing has changed. ``facts`` go into the manifest.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f".tmp-{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        write_manifest(temporary, **facts)
        _move_into_place(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _move_into_place(temporary: Path, final: Path) -> None:
    old = final.parent / f".old-{final.name}"
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    temporary.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(final: Path) -> None:
    """Puts the previous folder back when a replacement was interrupted between its two renames, and removes leftovers."""
    old, temporary = final.parent / f".old-{final.name}", final.parent / f".tmp-{final.name}"
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path, **facts: Any) -> None:
    """``manifest.json`` with path, size and sha256 of everything else in the folder, each file fsynced before it is named."""
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        digest = sync_file(path)
        files.append({"path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": digest})
    for inner in (p for p in folder.rglob("*") if p.is_dir()):
        sync_folder(inner)
    write_json(folder / MANIFEST, {"format": 1, **facts, "files": files})
    sync_folder(folder)


def read_manifest(folder: Path, hashes: bool = False) -> dict[str, Any] | None:
    """The manifest of a complete folder, None for a torn one: no manifest, a file missing or of another size (or hash)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for file in manifest["files"]:
            path = folder / file["path"]
            if path.stat().st_size != file["size"] or (hashes and sha256_of(path) != file["sha256"]):
                return None
        return manifest
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_json(path: Path, value: Any) -> None:
    """JSON under its final name only when it is complete and on disk."""
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def write_text(path: Path, text: str) -> None:
    """Text under its final name only when it is complete and on disk."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    sync_file(temporary)
    temporary.rename(path)


def shown_path(path: str) -> str:
    """A path as others may see it: relative to the working directory where it lies below it, else its last part alone."""
    absolute = Path(path).absolute()
    return absolute.relative_to(Path.cwd()).as_posix() if absolute.is_relative_to(Path.cwd()) else absolute.name


def sync_file(path: Path) -> str:
    """Fsyncs a file and returns its sha256, read back from where it lies."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return _digest(file)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: BinaryIO) -> str:
    sha256 = hashlib.sha256()  # hashlib.file_digest is not in Python 3.10
    while piece := file.read(1 << 20):
        sha256.update(piece)
    return sha256.hexdigest()
