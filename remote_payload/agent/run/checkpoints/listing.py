"""The checkpoints in a folder of outputs, a run's or a fetched one."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Iterable, List, Optional, Tuple

from remote_payload.agent.box.files import read_json
from remote_payload.agent.run.checkpoints.complete import judge
from remote_payload.agent.run.checkpoints.describe import describe, describe_unfinished, numbers, whole
from remote_payload.agent.run.checkpoints.forms import find_units
from remote_payload.agent.run.checkpoints.rule import Rule

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Checkpoint, Checkpoints, Unfinished

NAME = re.compile(r"step-[0-9]{1,12}")


def list_written(
    outputs: str, paths: Iterable[str], rule: Rule, is_running: bool
) -> Tuple[List[Checkpoint], List[Unfinished]]:
    """The checkpoints that these files of a program of the user's own form, complete and not, each the oldest first."""
    units = [unit for unit in find_units(paths, rule) if unit.is_checkpoint]
    judged = judge(outputs, units, rule, is_running)
    complete = [describe(outputs, each) for each in judged if each.why is None]
    unfinished = [describe_unfinished(each) for each in judged if each.why is not None]
    complete.sort(key=lambda each: (each["at"] or 0.0, each["step"] or 0, each["path"]))
    unfinished.sort(key=lambda each: (each["at"] or 0.0, each["path"]))
    return complete, unfinished


def list_checkpoints(outputs: str) -> Checkpoints:
    """A recipe's checkpoints in an ``outputs`` folder, a fetched one too. Folders without a manifest are not complete, and are left out."""
    folder = os.path.join(outputs, "checkpoints")
    names = sorted(name for name in _names(folder) if NAME.fullmatch(name))
    found = [_describe(outputs, "checkpoints/" + name, name) for name in names]
    best = _describe(outputs, "models/best", "best")
    if best is not None:
        metrics = read_json(os.path.join(outputs, "models", "best", "metrics.json")) or {}
        best["step"], best["metrics"] = whole(metrics.pop("step", None)), numbers(metrics)
    listed = [each for each in found if each]
    return {"checkpoints": listed, "best": best, "unfinished": [], "now": time.time()}


def _names(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _describe(outputs: str, path: str, name: str) -> Optional[Checkpoint]:
    written_last = os.path.join(outputs, path, "manifest.json")
    manifest = read_json(written_last)
    if manifest is None or not isinstance(manifest.get("files"), list):
        return None
    files = [file for file in manifest["files"] if isinstance(file, dict) and whole(file.get("size")) is not None]
    return {
        "name": name,
        "path": path,
        "step": whole(manifest.get("step")),
        "metrics": numbers(manifest.get("metrics")),
        "size": sum(file["size"] for file in files),
        "resumable": any(file.get("path") == "optimizer.safetensors" for file in files),
        "at": _time_of(written_last),
    }


def _time_of(file: str) -> Optional[float]:
    try:
        return os.stat(file).st_mtime
    except OSError:  # deleted meanwhile
        return None
