"""Verb ``checkpoints``: the complete checkpoints and models of a run, by their own manifests."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import is_number, is_whole
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Checkpoint, Checkpoints

LARGEST = 1 << 48  # of a step, and of a file's bytes
FARTHEST = 1e300
NAME = re.compile(r"step-[0-9]{1,12}")


def checkpoints(request: Request) -> Checkpoints:
    """``{checkpoints: [{name, path, step, metrics, size, resumable, at}], best}``, oldest first. Raises AgentError RunLost."""
    run = request.run()
    if not os.path.isdir(run.folder):
        raise AgentError("RunLost", "run %s has no folder on the box" % run.run_id)
    return list_checkpoints(run.outputs)


def list_checkpoints(outputs: str) -> Checkpoints:
    """The checkpoints in an ``outputs`` folder, a fetched one too. Folders without a manifest are not complete, and are left out."""
    folder = os.path.join(outputs, "checkpoints")
    names = sorted(name for name in _names(folder) if NAME.fullmatch(name))
    found = [_describe(outputs, "checkpoints/" + name, name) for name in names]
    best = _describe(outputs, "models/best", "best")
    if best is not None:
        metrics = read_json(os.path.join(outputs, "models", "best", "metrics.json")) or {}
        best["step"], best["metrics"] = _step(metrics.pop("step", None)), _numbers(metrics)
    return {"checkpoints": [each for each in found if each], "best": best}


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
    files = [file for file in manifest["files"] if isinstance(file, dict) and _is_whole(file.get("size"))]
    return {
        "name": name,
        "path": path,
        "step": _step(manifest.get("step")),
        "metrics": _numbers(manifest.get("metrics")),
        "size": sum(file["size"] for file in files),
        "resumable": any(file.get("path") == "optimizer.safetensors" for file in files),
        "at": _time_of(written_last),
    }


def _time_of(file: str) -> Optional[float]:
    try:
        return os.stat(file).st_mtime
    except OSError:  # deleted meanwhile
        return None


def _step(value: Any) -> Optional[int]:
    return value if _is_whole(value) else None


def _is_whole(value: Any) -> bool:
    return is_whole(value) and 0 <= value <= LARGEST


def _numbers(metrics: Any) -> Dict[str, float]:
    """The metrics that are finite numbers: a run that diverged has others."""
    named = metrics.items() if isinstance(metrics, dict) else ()
    return {str(name)[:100]: value for name, value in named if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    return is_number(value) and -FARTHEST <= value <= FARTHEST
