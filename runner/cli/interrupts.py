"""Ctrl-C while a command runs: a KeyboardInterrupt, never in the middle of an import, and never lost.

Python raises it wherever the program is at that moment. Inside an import it leaves half-loaded modules behind; inside a callback or
a ``__del__`` Python prints "Exception ignored in", and the interrupt is lost.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.02  # seconds until the next try, if the interrupt cannot be raised now


@contextmanager
def raised() -> Iterator[None]:
    """Within the block Ctrl-C is a KeyboardInterrupt; after it Ctrl-C ends the process silently.

    Nothing changes if Ctrl-C does not end the process before the block: it is ignored, or a test calls gpurun.
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
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # an alarm may be pending


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, or tries again soon if a module is being imported."""
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
    """Python calls this for an exception that it cannot raise, as in ``__del__``: an interrupt is raised soon after it."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(lost)
