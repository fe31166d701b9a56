"""Folders that are complete or not there. Checkpoints and models are written beside their final name and renamed into place."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from safetensors import SafetensorError

from remote_payload.train.files import sha256_of, sync_file, sync_folder, write_json

MANIFEST = "manifest.json"


class ManifestFile(TypedDict):
    """A file of a complete folder; ``path`` is relative to the folder."""

    path: str
    size: int
    sha256: str


class SavedFile(ManifestFile, total=False):
    """The same in the folder itself, with the time of the last write to it. Folders of older versions do not have that."""

    mtime_ns: int


class Manifest(TypedDict, total=False):
    """``manifest.json``: the files of a complete folder, and what is known about the folder as a whole."""

    format: int
    files: list[SavedFile]
    step: int  # of a checkpoint
    metrics: dict[str, float]  # of a checkpoint, if it was evaluated
    made_from: dict[str, Any]  # of a tokenizer


@contextmanager
def disk_errors() -> Iterator[None]:
    """Inside, an error of the disk is always an OSError. safetensors has an error of its own for it, which is none."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"I/O error: .*\(os error (\d+)\)", str(error))
        if number is None:  # it is about the tensors, not about the disk
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


@contextmanager
def complete_folder(final: Path, hashed: Mapping[str, str] | None = None, **facts: Any) -> Iterator[Path]:
    """Gives a temporary folder to fill; on success fsyncs it, writes its manifest last, and renames it to ``final``.

    A folder that is there already is replaced. After an exception nothing has changed. ``facts`` go into the manifest. ``hashed``
    has the sha256 of files, by path, that were hashed while they were written: they are not read again.
    Raises OSError when the disk is full, whoever wrote to it.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f".tmp-{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with disk_errors():
            yield temporary
        write_manifest(temporary, hashed, **facts)
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


@contextmanager
def folder_lock(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Only one process at a time makes a folder that runs share. Another process waits, and then finds the folder made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".lock-{folder.name}", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that is making {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        recover_folder(folder)
        yield


def write_manifest(folder: Path, hashed: Mapping[str, str] | None = None, **facts: Any) -> None:
    """``manifest.json`` with path, size, sha256 and time of every other file in the folder; each file is fsynced first.

    Those in ``hashed`` (path to sha256) are not read.
    """
    files: list[SavedFile] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        name = path.relative_to(folder).as_posix()
        digest = sync_file(path, (hashed or {}).get(name))
        status = path.stat()
        files.append({"path": name, "size": status.st_size, "sha256": digest, "mtime_ns": status.st_mtime_ns})
    for inner in (p for p in folder.rglob("*") if p.is_dir()):
        sync_folder(inner)
    write_json(folder / MANIFEST, {"format": 1, **facts, "files": files})
    sync_folder(folder)


def read_manifest(folder: Path, hashes: bool = False) -> Manifest | None:
    """The manifest of a complete folder. None for a torn folder: no manifest, a file missing or of another size.

    With ``hashes`` every file is read too, and a file with another sha256 makes the folder a torn one.
    """
    try:
        manifest: Manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for file in manifest["files"]:
            path = folder / file["path"]
            if path.stat().st_size != file["size"] or (hashes and sha256_of(path) != file["sha256"]):
                return None
        return manifest
    except (OSError, ValueError, KeyError, TypeError):
        return None
