"""``python -m tests.support.killed_at POINT -- ARGUMENTS``: gpurun, killed by SIGKILL at one point of its way.

A point is ``module:function:when``: ``before`` (as the function is entered), ``after`` (as it returns), or ``in`` (half a
second into it, or at its end when it is quicker). The product has no hook for this: its functions are
wrapped here, in the process that is to die.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

MIDWAY = 0.5


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(point: str) -> None:
    """Arms one point."""
    module_name, name, when = point.split(":")
    holder: Any = importlib.import_module(module_name)
    *outer, last = name.split(".")
    for each in outer:
        holder = getattr(holder, each)
    original: Callable[..., Any] = getattr(holder, last)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die()
        if when == "in":
            threading.Timer(MIDWAY, die).start()
        result = original(*args, **kwargs)
        die()
        return result

    setattr(holder, last, wrapped)


if __name__ == "__main__":
    wrap(sys.argv[1])
    from runner.cli.main import main

    main(sys.argv[3:])
