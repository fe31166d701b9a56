"""Red flags: signs in the steps of a run that something is wrong."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean, median
from typing import Any

from remote_payload.train.telemetry import Telemetry

WINDOW = 20  # steps that are compared with the earlier ones
LOW_MFU = 0.05
STILL = 300.0  # seconds without a step that are never normal when steps are short


class Watchdog:
    """Looks at every step. Raises each flag once, and again only after its reason was gone."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.speeds: deque[float] = deque(maxlen=WINDOW)
        self.best_loss: float | None = None
        self.best_speed = 0.0
        self.raised: set[str] = set()
        self.seen = 0

    def step(self, facts: dict[str, Any]) -> None:
        """``facts`` are those of a step event."""
        self.seen += 1
        self.losses.append(facts["loss"])
        self.speeds.append(facts["tokens_per_second"])  # not the time of a step: ragged steps differ in tokens
        if len(self.losses) < WINDOW:
            return
        loss, speed = fmean(self.losses), median(self.speeds)
        self.best_loss = min(loss, self.best_loss if self.best_loss is not None else loss)
        self.best_speed = max(speed, self.best_speed)
        self._flag_if(
            "loss_rising",
            loss > 1.5 * self.best_loss and loss - self.best_loss > 0.3,
            f"mean loss of the last {WINDOW} steps is {loss:.3f}, it has been {self.best_loss:.3f}",
        )
        self._flag_if(
            "step_time_growing",
            speed < self.best_speed / 2,
            f"the same tokens take {self.best_speed / max(speed, 1e-9):.1f} times as long as they have taken before",
        )
        mfu = facts.get("mfu")
        self._flag_if("mfu_low", mfu is not None and self.seen > 2 * WINDOW and mfu < LOW_MFU, f"MFU is {mfu or 0:.1%}")

    def _flag_if(self, name: str, bad: bool, message: str) -> None:
        if bad and name not in self.raised:
            self.raised.add(name)
            self.telemetry.flag(name, message)
        elif not bad:
            self.raised.discard(name)


class StallDetector:
    """When the last step ended, and whether that is too long ago: ten times the duration of a step, and at least five minutes."""

    def __init__(self) -> None:
        self.last: float | None = None
        self.times: deque[float] = deque(maxlen=WINDOW)
        self.flagged = False

    def stepped(self, now: float) -> None:
        if self.last is not None:
            self.times.append(now - self.last)
        self.last, self.flagged = now, False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no step is expected: an evaluation or a save may take any time."""
        self.last = None
        yield
        self.last = time.monotonic()

    def too_long(self, now: float) -> bool:
        """Whether no step has ended for too long; true once for each such pause."""
        if self.last is None or self.flagged or not self.times:
            return False
        self.flagged = now - self.last > max(STILL, 10 * median(self.times))
        return self.flagged


@contextmanager
def watching(stall_detector: StallDetector, telemetry: Telemetry, every: float = 10.0) -> Iterator[None]:
    """A thread that flags ``no_progress`` while no step ends inside: a stuck collective or file system reports nothing itself."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            now = time.monotonic()
            if stall_detector.too_long(now):
                telemetry.flag("no_progress", f"no step has ended for {now - (stall_detector.last or now):.0f} s")

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
