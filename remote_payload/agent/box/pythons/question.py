"""A question to an interpreter of the box: a program that it runs, and what it printed."""

import os
import subprocess
from typing import Sequence


def ask(path: str, program: str, limit: float, hidden: Sequence[str] = ()) -> "subprocess.CompletedProcess[bytes]":
    """What ``program`` printed and how it ended, without Python's own variables and those of ``hidden``.

    Raises OSError where it cannot be started, TimeoutExpired after ``limit`` seconds.
    """
    variables = {
        name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("PYTHON")
    }
    return subprocess.run(
        [path, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit,
        cwd="/", env=variables,
    )  # fmt: skip


def last_message(done: "subprocess.CompletedProcess[bytes]") -> str:
    """The last line of its errors."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return (lines or ["no message"])[-1][:300]
