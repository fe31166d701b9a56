"""Packs the code that runs on a box: the agent as a zipapp, the training package as a zip. Each is named by its sha256."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from importlib.abc import Traversable

START = b"from remote_payload.agent.__main__ import main\n\nmain()\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same content gives the same bytes


class Bundle(NamedTuple):
    """A zip and its sha256, which is its name on the box."""

    sha256: str
    data: bytes


@functools.cache
def agent() -> Bundle:
    """``remote_payload.agent`` and NVML's one module, as a zipapp that any Python ≥ 3.8 runs.

    Not compressed: every connection needs its sha256, but its bytes are sent only once to a box, compressed as a whole.
    """
    files = dict(_package("agent"))
    files["__main__.py"] = START
    files["pynvml.py"] = _nvml()
    return _pack(files, zipfile.ZIP_STORED)


@functools.cache
def payload() -> Bundle:
    """The training package (``train``, ``recipes``, ``settings``, ``forecast``, ``publish``), which a recipe job has on its PYTHONPATH."""
    return _pack(dict(_package("train", "recipes", "settings", "forecast", "publish")))


def _package(*parts: str) -> Iterator[tuple[str, bytes]]:
    top = resources.files("remote_payload")
    for file in ("__init__.py", "tokens.py"):
        yield f"remote_payload/{file}", (top / file).read_bytes()
    for part in parts:
        yield from _files(top / part, f"remote_payload/{part}")


def _files(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry, path)
        elif not entry.name.endswith((".pyc", ".pyo")) and not entry.name.startswith("."):
            yield path, entry.read_bytes()


def _nvml() -> bytes:
    found = importlib.util.find_spec("pynvml")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("pynvml is missing: install nvidia-ml-py, which gpurun depends on")
    return Path(found.origin).read_bytes()


def _pack(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Bundle:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], method, 9)
    data = packed.getvalue()
    return Bundle(hashlib.sha256(data).hexdigest(), data)
