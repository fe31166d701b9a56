"""The last evaluation of each name in a run's events. A file is read once as long as the agent lives, afterwards what was added to it."""

import json
import os
import threading
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from remote_payload.agent.run.checkpoints.describe import numbers, whole
from remote_payload.agent.run.events import MAX_EVENT

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Evaluated

MAX_NAMES = 4096  # evaluations of one run
MAX_METRICS = 256  # of one evaluation


class Reader:
    """The evaluations of one events file, up to where it was read."""

    def __init__(self) -> None:
        self.found: Dict[str, Evaluated] = {}
        self._offset = 0
        self._inside_long_line = False
        self._lock = threading.Lock()  # two requests of one connection may ask at once

    def read_on(self, path: str) -> List["Evaluated"]:
        """The last evaluation of each name, in the order in which the names first appeared."""
        with self._lock, open(path, "rb") as file:
            file.seek(self._offset)
            while True:
                line = file.readline(MAX_EVENT + 1)
                is_whole = line.endswith(b"\n")
                if not is_whole and len(line) <= MAX_EVENT:
                    break  # it is being written, and is read next time
                self._offset += len(line)
                if is_whole and not self._inside_long_line and b'"eval"' in line:
                    self._take(line)
                self._inside_long_line = not is_whole
            return list(self.found.values())

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            return
        if not isinstance(event, dict) or event.get("type") != "eval":
            return
        name = event.get("name")
        name = name[:200] if isinstance(name, str) else ""
        if name in self.found or len(self.found) < MAX_NAMES:
            self.found[name] = {"name": name, "step": whole(event.get("step")), "metrics": _first(event.get("metrics"))}


def _first(metrics: Any) -> Dict[str, float]:
    return dict(list(numbers(metrics).items())[:MAX_METRICS])


_readers: Dict[Tuple[str, int, int], Reader] = {}


def last_of_each_name(path: str) -> List["Evaluated"]:
    """The last ``eval`` event of each name in an events file; none where it cannot be read. Metrics that are no numbers are left out."""
    try:
        found = os.stat(path)
        reader = _readers.setdefault((path, found.st_dev, found.st_ino), Reader())
        return reader.read_on(path)
    except OSError:
        return []
