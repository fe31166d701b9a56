"""Checks a model's folder that came from a box before anything is loaded from it.

Only names, sizes, JSON and the headers of safetensors files are read; nothing is executed or unpickled, and no link is followed. A folder
that passes is given to transformers and peft, in a process of its own, and even there code from the folder is never run.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from runner.domain.errors import SmokeTestFailed
from runner.domain.terminal import clean
from runner.local_model.weights import Tensor, read_header

JsonObject: TypeAlias = dict[str, object]

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
MAX_FILES = 10_000
# In bytes. The largest tokenizer.json of the public models (256k tokens) has 34 MB.
MAX_JSON = {"tokenizer.json": 256 << 20, "vocab.json": 64 << 20, "model.safetensors.index.json": 64 << 20}
MAX_OTHER_JSON = 8 << 20
# A key that makes a library import or download code, whatever its value; then keys that do so for some values.
CODE_KEYS = ("auto_map", "custom_pipelines")
SUSPICIOUS: dict[str, Callable[[object], bool]] = {
    "trust_remote_code": lambda value: bool(value),
    "auto_mapping": lambda value: bool(value),
    "megatron_config": lambda value: bool(value),
    "_attn_implementation": lambda value: "/" in str(value),
    "attn_implementation": lambda value: "/" in str(value),
    "_experts_implementation": lambda value: "/" in str(value),
}


@dataclass(frozen=True)
class Inspected:
    """What the folder holds: its regular files, the pickles among them, JSON objects by name, tensors by file."""

    folder: Path
    files: tuple[str, ...]
    pickles: tuple[str, ...]
    configs: dict[str, JsonObject]
    tensors: dict[str, list[Tensor]]

    @property
    def elements(self) -> int:
        """Numbers in all weights of the model, without an optimizer's state and the box's predictions."""
        weights = [name for name in self.tensors if "/" not in name and not name.startswith("optimizer")]
        return sum(tensor.elements for name in weights for tensor in self.tensors[name])


def inspect(folder: Path, blobs: Path | None = None) -> Inspected:
    """Checks every file below ``folder``. Raises SmokeTestFailed naming the first that must not be loaded.

    ``blobs`` is a folder that links may lead into: the cache of the Hub's client keeps each file there once.
    """
    files = _regular_files(folder, blobs)
    configs = {name: _read_json(folder, name) for name in files if name.endswith(".json")}
    tensors = {name: _read_weights(folder, name) for name in files if name.endswith(".safetensors")}
    for name, config in configs.items():
        _refuse_code(folder, name, config)
    _check_index(folder, configs.get("model.safetensors.index.json"), tensors)
    pickles = tuple(name for name in files if name.lower().endswith(PICKLES))
    if pickles and not any("/" not in name for name in tensors):
        raise _refused(folder, f"its weights are pickles ({_some(pickles)}), which can run code when they are opened")
    return Inspected(folder, tuple(files), pickles, configs, tensors)


def _regular_files(folder: Path, blobs: Path | None) -> list[str]:
    """Paths of all files relative to ``folder``. Raises SmokeTestFailed for a link, a device or anything else that is no file or folder."""
    found: list[str] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = str(Path(entry.path).relative_to(folder))
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(Path(entry.path))
                elif stat.S_ISREG(mode) or _leads_into(entry.path, blobs):
                    found.append(name)
                else:
                    kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
                    raise _refused(folder, f"{clean(name, 120)} is {kind}")
                if len(found) + len(waiting) > MAX_FILES:
                    raise _refused(folder, f"it has more than {MAX_FILES} files")
    return sorted(found)


def _leads_into(path: str, blobs: Path | None) -> bool:
    return blobs is not None and os.path.isfile(path) and Path(path).resolve().parent == blobs.resolve()


def _read_json(folder: Path, name: str) -> JsonObject:
    limit = MAX_JSON.get(name.rpartition("/")[2], MAX_OTHER_JSON)
    with open(folder / name, "rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise _refused(folder, f"{clean(name, 120)} has over {limit} bytes")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _refused(folder, f"{clean(name, 120)} is not JSON ({clean(error, 80)})") from None
    return value if isinstance(value, dict) else {}


def _read_weights(folder: Path, name: str) -> list[Tensor]:
    try:
        return read_header(folder / name)
    except ValueError as error:
        raise _refused(folder, f"{clean(name, 120)} is not a valid safetensors file: {error}") from None


def _refuse_code(folder: Path, name: str, value: object) -> None:
    """Searches a configuration, nested ones included, for keys that make a library run other code than its own."""
    waiting = [value] if name.rpartition("/")[2] not in MAX_JSON else []  # vocabularies may hold any word
    while waiting:
        current = waiting.pop()
        if isinstance(current, list):
            waiting.extend(current)
        if not isinstance(current, dict):
            continue
        for key, item in current.items():
            if key in CODE_KEYS or (key in SUSPICIOUS and SUSPICIOUS[key](item)):
                raise _refused(folder, f"{clean(name, 120)} names code to be run ({key}: {clean(item, 60)})")
            waiting.append(item)


def _check_index(folder: Path, index: JsonObject | None, tensors: dict[str, list[Tensor]]) -> None:
    """Raises SmokeTestFailed when an index names a shard that is not a file of this folder."""
    if index is None:
        return
    shards = index.get("weight_map")
    if not isinstance(shards, dict):
        raise _refused(folder, "model.safetensors.index.json has no weight_map")
    for shard in set(map(str, shards.values())):
        if shard not in tensors:
            raise _refused(folder, f"model.safetensors.index.json names {clean(shard, 120)}, which is not there")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(clean(name, 60) for name in names[:3]) + ("" if len(names) <= 3 else f" and {len(names) - 3} more")


def _refused(folder: Path, why: str) -> SmokeTestFailed:
    return SmokeTestFailed(
        f"{folder} will not be loaded: {why}",
        meaning="Nothing of it was opened or run.",
        hint="If you did not write this yourself, do not trust the box it came from.",
    )
