"""What a run reports while it runs: lines in the log, events for gpurun, curves for TensorBoard and, if asked for, W&B."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from remote_payload.train import wandb_run

MAX_EVENT = 64 * 1024  # bytes; one write of at most this much is never mixed with another's
LINE_EVERY = 2.0  # seconds between two step lines in the log


class Events:
    """JSON lines appended to ``$GPURUN_EVENTS``, one write each, so that several writers never mix and a reader never waits."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def emit(self, kind: str, **fields: Any) -> None:
        """One event; NaN and infinity become null, one that is too long loses its longest field; on a full disk the event is lost."""
        event = {"t": round(time.time(), 3), "type": kind, **_finite(fields)}
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        while len(line) > MAX_EVENT:
            longest = max(
                (name for name in event if name not in ("t", "type")), key=lambda name: len(repr(event[name]))
            )
            event[longest] = None
            line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        with suppress(OSError):
            os.write(self._descriptor, line)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)


class Telemetry:
    """Every channel of one run. Only the main rank writes; on the others each call does nothing."""

    def __init__(
        self, run_id: str, events: Path, logs: Path, main: bool, config: dict[str, Any] | None = None,
        wandb_record: Path | None = None, resumed: bool = False,
    ) -> None:  # fmt: skip
        """``wandb_record`` remembers the W&B run, which a ``resumed`` run continues."""
        self._last_line = 0.0
        self._copy: TextIO | None = None
        self._events = Events(events) if main else None
        self._board = _tensorboard(logs) if main else None
        self._wandb = wandb_run.start(run_id, config or {}, logs, wandb_record, resumed) if main else None
        if main and self._wandb:
            self.log(f"also writing to W&B: {self._wandb.url}")

    def log(self, text: str) -> None:
        """A line of the log. On a full disk it is lost, like everything here, and training continues."""
        with suppress(OSError):
            if self._events:
                print(text, flush=True)
            if self._copy:
                self._copy.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def copy_to(self, path: Path) -> None:
        """Every later line of the log also goes to this file, with the time in front."""
        if self._events:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._copy = path.open("a", encoding="utf-8", buffering=1)

    def event(self, kind: str, **fields: Any) -> None:
        """An event of any type (ARCHITECTURE.md, "What the payload meets")."""
        if self._events:
            self._events.emit(kind, **fields)

    def flag(self, name: str, message: str) -> None:
        """A red flag: in the log and as an event."""
        self.log(f"FLAG {name}: {message}")
        self.event("flag", name=name, message=message)

    def step(self, facts: dict[str, Any]) -> None:
        """One optimizer step; ``facts`` are the fields of a ``step`` event. The log gets a line every few seconds."""
        self.event("step", **facts)
        self.scalars(
            "train", {key: value for key, value in facts.items() if key not in ("step", "total")}, facts["step"]
        )
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY or facts["step"] in (1, facts["total"]):
            self._last_line = now
            self.log(step_line(facts))

    def evaluation(self, name: str, step: int, metrics: dict[str, float]) -> None:
        """The metrics of one evaluation."""
        self.event("eval", name=name, step=step, metrics=metrics)
        self.scalars(name, metrics, step)
        self.log(f"eval {name} at step {step}: " + "  ".join(f"{key} {value:.4f}" for key, value in metrics.items()))

    def scalars(self, group: str, values: dict[str, Any], step: int) -> None:
        """Curves for TensorBoard and W&B, without a line or an event."""
        numbers = {f"{group}/{key}": value for key, value in values.items() if isinstance(value, int | float)}
        if self._board:
            with suppress(OSError):
                for name, value in numbers.items():
                    self._board.add_scalar(name, value, step)
        if self._wandb:
            try:
                self._wandb.write(numbers, step)
            except Exception as error:  # its network, its disk, its service: none of them is worth a run
                self._wandb = None
                self.flag("wandb_lost", f"W&B is left out from here on: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Writes out what is buffered."""
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish(self.log)
        if self._copy:
            self._copy.close()
            self._copy = None


def step_line(facts: dict[str, Any]) -> str:
    """``step 12/100  epoch 0.36  loss 1.2345  lr 2.0e-04  norm 0.81  3,456 tok/s  MFU 31.0 %  210 ms  5.2 GiB``"""
    parts = [
        f"step {facts['step']}/{facts['total']}",
        f"epoch {facts['epoch']:.2f}",
        f"loss {facts['loss']:.4f}",
        f"lr {facts['lr']:.1e}",
        f"norm {facts['grad_norm']:.2f}",
        f"{facts['tokens_per_second']:,.0f} tok/s",
        f"MFU {facts['mfu']:.1%}" if facts.get("mfu") else "",
        f"{facts['ms']:.0f} ms",
        f"{facts['memory'] / 2**30:.1f} GiB" if facts.get("memory") else "",
    ]
    return "  ".join(part for part in parts if part)


def _tensorboard(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
