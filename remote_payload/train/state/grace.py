"""The time that a run needs between SIGTERM and SIGKILL to save its last checkpoint, and how those who stop it learn of it.

It lies in ``grace.json`` in the run's folder. ``gpurun stop`` and the time limit wait as long, unless another number was asked for.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from remote_payload.train.files import write_json

LEAST = 45.0  # seconds, for any run
SPARE = 15.0  # the last seconds of it, in which nothing new is begun
# Bytes a second until a save was measured: what the slow disks of rented boxes write (network volumes); local NVMe is ten times as fast.
DISK_SPEED = 150e6
MEASURABLE = 64 * 2**20  # bytes: the time that a smaller save takes says little about the disk


@dataclass(frozen=True)
class Clock:
    """The time until SIGKILL, and the speed of the disk in bytes a second."""

    ends_at: float
    speed: float = DISK_SPEED

    def allows(self, size: int) -> bool:
        """Whether there is time to read or write so many bytes, and to end in order."""
        return self.left > size / self.speed

    @property
    def left(self) -> float:
        """Seconds for more work, so that time remains to end in order; 0 or less: begin nothing."""
        return self.ends_at - SPARE - time.monotonic()


class Grace:
    """What is known of the disk's speed and of the size of a checkpoint, and the grace that follows from both."""

    def __init__(self, file: Path | None = None) -> None:
        """``file`` is where the grace is told; None: nobody is told."""
        self.file = file
        self.speed = DISK_SPEED
        self.seconds = LEAST
        self._measured = False

    @classmethod
    def of_this_run(cls) -> Grace:
        """Told in the folder of the run that gpurun launched; by nobody asked for where the run was started by hand."""
        folder = os.environ.get("GPURUN_RUN_DIR")
        return cls(Path(folder) / "grace.json" if folder else None)

    def measured(self, size: int, seconds: float) -> None:
        """A save of ``size`` bytes took so long. From here on the slowest one counts."""
        if size >= MEASURABLE and seconds > 0:
            speed = size / seconds
            self.speed = min(self.speed, speed) if self._measured else speed
            self._measured = True

    def tell(self, size: int, step: float = 0.0) -> None:
        """Tells the grace for checkpoints of ``size`` bytes and steps of ``step`` seconds. On a full disk it stays as it was.

        It is enough for a step that has just begun, and for two checkpoints: the one that may be under way, and the last.
        """
        self.seconds = max(LEAST, SPARE + step + 2 * size / self.speed)
        if self.file:
            with suppress(OSError):
                write_json(self.file, {"seconds": round(self.seconds, 1)})
