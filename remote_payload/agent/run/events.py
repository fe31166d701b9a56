"""The run's events file: one JSON object a line, appended by the payload, its ranks and the supervisor, each by one ``write``."""

import json
import os
import re
import time
from typing import Any, Dict

MAX_EVENT = 64 * 1024
LOOK_BACK = 4 * 1024 * 1024  # bytes at the end of the file in which the last event of each type is searched
MAX_TYPES = 64
TYPE = re.compile(rb'"type"\s*:\s*"([A-Za-z0-9_.-]{1,64})"')


def append(path: str, kind: str, **fields: Any) -> None:
    """Appends one event. On a full disk or without the folder, the event is lost, and no error is raised."""
    event = dict({"t": round(time.time(), 3), "type": kind}, **fields)
    line = json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n"
    if len(line) > MAX_EVENT:
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError:
        pass


def last(path: str) -> Dict[str, Dict[str, Any]]:
    """The last event of each type, by type. Incomplete lines, lines over MAX_EVENT and lines that are no events are skipped.

    A step that was read from a log whose bar shows no loss has the loss, and what was told with it, of the last step that has one.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOOK_BACK))
            lines = file.read(LOOK_BACK).split(b"\n")
    except OSError:
        return {}
    found: Dict[str, Dict[str, Any]] = {}
    for line in reversed(lines):
        kind = TYPE.search(line) if len(line) <= MAX_EVENT else None
        if kind is None or (kind.group(1).decode("ascii") in found and not _lacks_loss(kind.group(1), found)):
            continue
        try:
            event = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("type"), str) and len(found) < MAX_TYPES:
            earlier = event if event["type"] == "step" and "loss" in event and _lacks_loss(b"step", found) else {}
            found[event["type"]] = {**earlier, **found.get(event["type"], event)}
    return found


def _lacks_loss(kind: bytes, found: Dict[str, Dict[str, Any]]) -> bool:
    return kind == b"step" and "log" in found.get("step", {}) and "loss" not in found["step"]
