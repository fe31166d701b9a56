"""Requests from outside, noticed between two steps: SIGTERM and SIGINT mean save and end, SIGUSR1 means save and go on."""

from __future__ import annotations

import signal
from types import FrameType


class Requests:
    """What has been asked for so far. Handlers only set flags; the loop reads them where all ranks agree."""

    def __init__(self) -> None:
        self.stop = 0  # the signal's number
        self.save = False

    def listen(self) -> None:
        """Installs the handlers (main thread only). A second SIGINT ends at once, as people expect of Ctrl-C."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGUSR1, self._save)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stop = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save = True
