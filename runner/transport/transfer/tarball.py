"""Sends many small files to a new folder as one tar stream over ssh, which is faster than rsync there.

Nothing depends on its success: whatever fails (no tar on the box, a lost link, a folder that exists already), rsync goes on
from the files that have arrived. tar sets a file's time after its content, so that a partial file is never taken for a complete one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from runner.domain.errors import TransferInterrupted
from runner.domain.host import Host
from runner.domain.terminal import clean_lines
from runner.transport.openssh import ALIAS, ssh_argv
from runner.transport.transfer.rsync import SILENCE_LIMIT, name_list, safe_path
from runner.transport.transfer.rsync_process import Progress

MANY = 200  # files; with fewer, the additional connection takes longer than rsync's comparisons
SMALL = 64 << 10  # bytes on average; with larger files both are as fast as the link
CHUNK = 1 << 18
RECORD = 1 << 16  # bytes that tar writes at once; its default of 10 KiB takes a sixth longer
PIPE = 1 << 20  # bytes in the pipe between two processes, where the system allows that
LEVEL = 5  # of gzip: it compresses text at 50 MB/s a core, so that a link of 100 Mbit/s remains the bottleneck
GZIP = 31  # zlib's window bits for a stream with gzip's header


def pays(files: int, size: int) -> bool:
    """Whether this many files of ``size`` bytes in all arrive sooner as a tar stream."""
    return files >= MANY and size < files * SMALL and shutil.which("tar") is not None


def push(
    host: Host,
    source: Path,
    names: Sequence[str],
    target: str,
    progress: Progress,
    *,
    compress: bool = False,
    exact_times: bool = False,
) -> None:
    """Puts the named files of ``source`` into the folder ``target`` on the box, which must not exist yet.

    ``progress`` gets bytes before compression. Files keep their times to the second, with ``exact_times`` to the nanosecond, which takes
    a fifth more bytes. Raises TransferInterrupted when it does not finish.
    """
    folder, parent = safe_path(target), safe_path(os.path.dirname(target))
    there = f"mkdir -p {parent} && mkdir {folder} && exec tar -x {'-z' if compress else ''} -p -o -f - -C {folder}"
    with tempfile.TemporaryDirectory(prefix="gpurun-push-") as scratch, tempfile.TemporaryFile() as errors:
        packing = subprocess.Popen(
            [*_packer(exact_times), "-C", str(source), "--null", "-T", str(name_list(names, Path(scratch)))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "LC_ALL": "C", "COPYFILE_DISABLE": "1"},  # macOS would add its own files
        )
        sending = subprocess.Popen(
            [*ssh_argv(host), ALIAS, there],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            _copy(packing, sending, progress, zlib.compressobj(LEVEL, wbits=GZIP) if compress else None)
            _await_end(sending)
            codes = packing.wait(SILENCE_LIMIT), sending.wait(SILENCE_LIMIT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TransferInterrupted(f"the tar stream was interrupted: {error}", retryable=True) from None
        finally:
            for process in (packing, sending):
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if codes != (0, 0):
            errors.seek(0)
            stderr = clean_lines(errors.read(8192).decode("utf-8", "replace"), 500)
            raise TransferInterrupted(f"the tar stream did not finish, exit codes {codes}: {stderr}", retryable=True)


def _packer(exact_times: bool) -> list[str]:
    return ["tar", "-c", "-b", str(RECORD // 512), *(["--format=pax"] if exact_times else []), "-f", "-"]


def _copy(
    packing: subprocess.Popen[bytes], sending: subprocess.Popen[bytes], progress: Progress, gzip: zlib._Compress | None
) -> None:
    """Copies the output of one process to the input of the other. Raises OSError, and TimeoutError when nothing moves for SILENCE_LIMIT."""
    assert packing.stdout is not None and sending.stdin is not None
    _widen(packing.stdout, sending.stdin)
    with packing.stdout as source, sending.stdin as sink:
        os.set_blocking(sink.fileno(), False)
        copied = 0
        while part := os.read(source.fileno(), CHUNK):
            _write(sink.fileno(), gzip.compress(part) if gzip else part)
            copied += len(part)
            progress(copied)
        if gzip:
            _write(sink.fileno(), gzip.flush())


def _widen(*pipes: IO[bytes]) -> None:
    """Enlarges pipes to PIPE bytes where the system allows it: a user has a limit for all pipes together; macOS enlarges them by itself."""
    for pipe in pipes:
        with contextlib.suppress(OSError):
            if (wish := getattr(fcntl, "F_SETPIPE_SZ", None)) is not None:
                fcntl.fcntl(pipe.fileno(), wish, PIPE)


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Waits until its output closes; ``Popen.wait`` with a limit looks only twenty times a second. Raises TimeoutError."""
    assert process.stdout is not None
    with process.stdout as output:
        while select.select([output], [], [], SILENCE_LIMIT)[0]:
            if not os.read(output.fileno(), CHUNK):
                return
    raise TimeoutError("nothing moved for a while")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        if not select.select([], [descriptor], [], SILENCE_LIMIT)[1]:
            raise TimeoutError("nothing moved for a while")
        view = view[os.write(descriptor, view) :]
