"""Ctrl-C while a command runs: a KeyboardInterrupt, but never in the middle of an import, and none that is lost.

Python raises it wherever the program is at that moment. Inside an import it leaves half-loaded modules behind; inside a callback or
a ``__del__`` Python prints "Exception ignored in" and the program goes on as if nobody had pressed anything.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.02  # seconds until the next try, where the interrupt cannot be raised now


@contextmanager
def raised() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt within the block, and ends the process silently after it.

    Nothing changes where Ctrl-C does not end the process as the block is entered: it is ignored, or gpurun is called by a test.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    sys.unraisablehook = _raise_again
    signal.signal(signal.SIGALRM, _interrupt)
    try:
        signal.signal(signal.SIGINT, _interrupt)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # one may be on its way


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(lost)
