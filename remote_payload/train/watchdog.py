"""Red flags: what somebody who watched the run would be alarmed by."""

from __future__ import annotations

from collections import deque
from statistics import fmean, median
from typing import Any

from remote_payload.train.telemetry import Telemetry

WINDOW = 20  # steps that are compared with what came before
LOW_MFU = 0.05


class Watchdog:
    """Looks at every step and raises each flag once, until things are well again."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.times: deque[float] = deque(maxlen=WINDOW)
        self.best_loss: float | None = None
        self.usual_time: float | None = None
        self.raised: set[str] = set()
        self.seen = 0

    def step(self, facts: dict[str, Any]) -> None:
        """``facts`` are those of a step event."""
        self.seen += 1
        self.losses.append(facts["loss"])
        self.times.append(facts["ms"])
        if len(self.losses) < WINDOW:
            return
        loss, time = fmean(self.losses), median(self.times)
        self.best_loss = min(loss, self.best_loss if self.best_loss is not None else loss)
        self.usual_time = min(time, self.usual_time if self.usual_time is not None else time)
        self._judge(
            "loss_rising",
            loss > 1.5 * self.best_loss and loss - self.best_loss > 0.3,
            f"mean loss of the last {WINDOW} steps is {loss:.3f}, it has been {self.best_loss:.3f}",
        )
        self._judge(
            "step_time_growing",
            time > 1.8 * self.usual_time,
            f"a step takes {time:.0f} ms, it took {self.usual_time:.0f} ms",
        )
        mfu = facts.get("mfu")
        self._judge("mfu_low", mfu is not None and self.seen > 2 * WINDOW and mfu < LOW_MFU, f"MFU is {mfu or 0:.1%}")

    def _judge(self, name: str, bad: bool, message: str) -> None:
        if bad and name not in self.raised:
            self.raised.add(name)
            self.telemetry.flag(name, message)
        elif not bad:
            self.raised.discard(name)
