"""Single keys from the terminal, for the views that change. However a block ends, the terminal is as it was before."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

LEAVE = "q"
TICK = 0.25  # seconds between two looks at whether the block is over


@contextmanager
def one_by_one() -> Iterator[None]:
    """Keys come without echo and without waiting for Return. Ctrl-Z does nothing: it would leave the shell with this terminal."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        changed = termios.tcgetattr(sys.stdin)
        changed[6][termios.VSUSP] = os.fpathconf(sys.stdin.fileno(), "PC_VDISABLE").to_bytes(1, "little")
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def pressed(seconds: float) -> str:
    """The key that is pressed within so many seconds; empty for none, and where there is no terminal."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return ""
    return os.read(sys.stdin.fileno(), 64).decode("ascii", "replace")[:1]


@contextmanager
def q_interrupts() -> Iterator[None]:
    """While the block lasts, ``q`` is what Ctrl-C is: a KeyboardInterrupt in the main thread, whatever that thread waits for."""
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            if pressed(TICK) == LEAVE:
                # The signal and not only its flag: it wakes a main thread that waits for a lock.
                return signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident or 0
    reader = threading.Thread(target=read, daemon=True)
    with one_by_one():
        reader.start()
        try:
            yield
        finally:
            over.set()
            reader.join()
