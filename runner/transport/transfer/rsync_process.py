"""Runs one rsync: reads its progress, ends it when nothing moves any more, and explains how it failed."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from runner.domain.errors import (
    FilesChanged,
    HostKeyChanged,
    RsyncMissing,
    TransferError,
    TransferFailed,
    TransferInterrupted,
)
from runner.domain.host import Host
from runner.domain.terminal import clean_lines
from runner.transport.openssh import ssh_argv
from runner.transport.transfer import skip_login_output

TIMEOUTS = (30, 35)  # rsync's exit codes for its own --timeout, and for no connection
LOST = (10, 12, 20, 30, 35, 255)  # for a connection or another end that is no longer there

Progress = Callable[[int], None]  # bytes so far
_noisy: set[str] = set()  # hosts whose login shell prints before the command runs


class Meter:
    """Bytes copied so far, from rsync's progress: it counts all files together (``total``), or each file from zero."""

    _COUNT = re.compile(rb"(?:^|[\r\n])\s*([\d,.]+)\s+\d+%")

    def __init__(self, total: bool) -> None:
        self._total = total
        self._before = 0  # bytes of the files that are done
        self._torn = b""  # a line whose end comes with the next chunk

    def read(self, chunk: bytes) -> int | None:
        """The bytes so far; None where the chunk has no number of bytes."""
        output = self._torn + chunk
        if self._total:  # the end of a line comes with the next line, a second later: a torn one counts too
            self._torn = output[-200:]
            counts = self._COUNT.findall(output)
            return _number(counts[-1]) if counts else None
        *lines, self._torn = re.split(rb"[\r\n]", output[-(1 << 17) :])
        so_far = None
        for line in lines:
            if found := self._COUNT.match(line):
                so_far = self._before + _number(found[1])
                if b"(xf" in line:  # the last line of a file
                    self._before = so_far
        return so_far


def _number(text: bytes) -> int:
    return int(re.sub(rb"\D", b"", text) or 0)


@dataclass(frozen=True)
class Ended:
    """How one rsync ended: its exit code, the end of its stderr, and whether it was ended because it was silent."""

    code: int
    errors: bytes
    silent: bool


def run(host: Host, rsync: str, arguments: list[str], limit: float, meter: Meter, progress: Progress | None) -> None:
    """Runs rsync to its end; a second time, behind skip_login_output, where the login shell of the box prints.

    ``limit``: seconds without output after which it is ended. Raises TransferError or HostKeyChanged.
    """
    ended = _copy(host, rsync, arguments, limit, meter, progress)
    if b"is your shell clean" in ended.errors and host.known_as not in _noisy:
        _noisy.add(host.known_as)
        ended = _copy(host, rsync, arguments, limit, meter, progress)
    if ended.code != 0 or ended.silent:
        raise explain(host, ended, limit)


def _copy(host: Host, rsync: str, arguments: list[str], limit: float, meter: Meter, progress: Progress | None) -> Ended:
    filtered = [sys.executable, "-I", skip_login_output.__file__] if host.known_as in _noisy else []
    remote_shell = " ".join(_quoted(word) for word in [*filtered, *ssh_argv(host)])
    process = subprocess.Popen(
        [rsync, "-e", remote_shell, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # its ssh ends with it, and Ctrl-C reaches only this process
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        errors, silent = _watch(process, limit, meter, progress)
    except BaseException:
        _end(process)
        raise
    if silent:
        _end(process)
    return Ended(process.wait(), errors, silent)


def _quoted(word: str) -> str:
    # rsync splits -e itself, and understands no other quotes than these.
    return f'"{word}"' if " " in word else word


def _watch(
    process: subprocess.Popen[bytes], limit: float, meter: Meter, progress: Progress | None
) -> tuple[bytes, bool]:
    """Reads both pipes until they close; gives the end of stderr, and whether there was no output for ``limit`` seconds.

    ``progress`` is told the bytes at least once a second, so that whoever it belongs to can end a copy that stands still.
    """
    assert process.stdout is not None and process.stderr is not None
    errors, so_far = b"", 0
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        heard = time.monotonic()
        while selector.get_map():
            for key, _ in selector.select(timeout=1.0):
                chunk = os.read(key.fd, 1 << 16)
                heard = time.monotonic()
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors = (errors + chunk)[-8192:]
                elif (copied := meter.read(chunk)) is not None:
                    so_far = copied
            if progress is not None:
                progress(so_far)
            if time.monotonic() - heard > limit:
                return errors, True
    return errors, False


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=3)
            return
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def explain(host: Host, ended: Ended, limit: float) -> TransferError | HostKeyChanged:
    """The error for an rsync that did not succeed."""
    stderr = clean_lines(ended.errors.decode("utf-8", "replace"), 1500)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr or "Host key verification failed" in stderr:
        return HostKeyChanged(
            f"the host key of {host.known_as} is not the pinned one (seen by OpenSSH)",
            meaning="Nothing was sent.",
            hint=f"If you know that the box was replaced: gpurun hosts forget {host.known_as}",
        )
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        return TransferFailed(
            f"a disk is full:\n{stderr}", hint="Free space there (gpurun clean, for a box), then repeat the command."
        )
    if "command not found" in stderr or "rsync: not found" in stderr:
        return RsyncMissing(
            "there is no rsync on the box", hint="apt-get install rsync there, then repeat the command."
        )
    if ended.silent or ended.code in LOST or ended.code < 0:
        why = (stderr.splitlines() or [f"rsync ended with {ended.code}"])[-1]
        return TransferInterrupted(
            "copying was interrupted: " + (f"no byte moved for {limit:.0f} seconds" if ended.silent else why),
            meaning="What arrived is kept; nothing incomplete stands under its final name.",
            hint="Repeat the command: it goes on from there.",
            retryable=not (
                ended.silent or ended.code in TIMEOUTS or "imed out" in stderr
            ),  # a repetition would wait for another minute
        )
    if ended.code == 24 or (ended.code == 23 and ("vanished" in stderr or "No such file" in stderr)):
        return FilesChanged(
            f"files changed while they were copied:\n{stderr}", hint="Repeat the command when they are at rest."
        )
    return TransferFailed(
        f"rsync ended with {ended.code}:\n{stderr}", hint="Mend what rsync names, then repeat the command."
    )
