"""Waits for a blocked signal, by libc: CPython's ``signal.sigtimedwait`` returns a signal that was never sent when its wait is
interrupted (by SIGSTOP and SIGCONT) and its time ends meanwhile. It then reads a structure that was never filled in.
"""

import ctypes
from typing import Iterable, Optional


class Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_libc = ctypes.CDLL(None, use_errno=True)
SET_SIZE = 128  # bytes of sigset_t, of glibc and musl


def wait(numbers: Iterable[int], seconds: float) -> Optional[int]:
    """The next of the blocked signals ``numbers``, None when there is none within ``seconds`` or the wait was interrupted."""
    wanted = ctypes.create_string_buffer(SET_SIZE)
    _libc.sigemptyset(wanted)
    for number in numbers:
        _libc.sigaddset(wanted, int(number))
    limit = Timespec(int(seconds), int(seconds % 1 * 1e9))
    received = _libc.sigtimedwait(wanted, None, ctypes.byref(limit))
    return received if received > 0 else None
