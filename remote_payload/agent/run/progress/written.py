"""The events that a log's lines become, each with the log's offset behind the line: it marks them, and a later reader goes on there.

What the program itself writes to its events comes first: of a type that it writes nothing is read from its log.
"""

import json
import os
import time
from typing import Any, Dict, Optional, Set, Tuple

from remote_payload.agent.run import events
from remote_payload.agent.run.progress.told import Fields, Told

TYPES = ("step", "eval")
LOOK = 64 * 1024  # bytes at the end of the events in which a program's own are looked for
PACE_OVER = 2.0  # seconds over which a pace is measured at least
AT_ONCE = 20  # evaluations in one round


class Written:
    """The events file of one run, as the reader of its log adds to it."""

    def __init__(self, path: str) -> None:
        self._path = path
        known = events.last(path)
        self._own: Set[str] = {kind for kind in TYPES if kind in known and not _is_read(known[kind])}
        ours = [known[kind] for kind in TYPES if kind in known and kind not in self._own]
        self.offset = max((event["log"] for event in ours), default=0)
        self.step: Optional[int] = (
            _whole(known["step"].get("step")) if "step" in known and "step" not in self._own else None
        )
        self._began: Optional[Tuple[float, int]] = None  # when which step was seen first

    @property
    def left_to_program(self) -> bool:
        """Whether the program writes its own steps, so that there is nothing to do."""
        return "step" in self._own

    def evaluation(self, told: Told, end: int) -> None:
        """Appends an evaluation whose step is known."""
        if told.evaluation and "step" in told.step and "eval" not in self._own:
            events.append(self._path, "eval", name=told.name, step=told.step["step"], metrics=told.evaluation, log=end)

    def place(self, fields: Fields, end: int) -> None:
        """Appends a step, not a second time."""
        step = _whole(fields.get("step"))
        if "step" in self._own or (step is not None and step == self.step):
            return
        shown: Dict[str, Any] = {name: value for name, value in fields.items() if value is not None or name == "loss"}
        if step is not None:
            pace = self._pace(step)
            if pace is not None:
                shown.setdefault("ms", pace)
            self.step = step
        events.append(self._path, "step", **shown, log=end)

    def _pace(self, step: int) -> Optional[float]:
        """Milliseconds of a step since the first one that was seen."""
        now = time.monotonic()
        if self._began is None or step < self._began[1] or (self.step is not None and step < self.step):
            self._began = (now, step)
        since, first = self._began
        return round(1000 * (now - since) / (step - first), 3) if step > first and now - since >= PACE_OVER else None

    def look(self) -> None:
        """Notices which types the program writes itself."""
        try:
            with open(self._path, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOOK))
                lines = file.read(LOOK).split(b"\n")
        except OSError:
            return
        for line in lines:
            if b'"step"' not in line and b'"eval"' not in line:
                continue
            try:
                event = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and event.get("type") in TYPES and not _is_read(event):
                self._own.add(event["type"])


def _is_read(event: Dict[str, Any]) -> bool:
    """Whether the event was read from the log."""
    return _whole(event.get("log")) is not None


def _whole(value: object) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
