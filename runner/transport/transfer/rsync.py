"""Copies files to and from a box with rsync.

The same arguments serve every rsync that a laptop or a box has: rsync 2.6.9 and newer, and Apple's openrsync (macOS 15.4 and newer). Only
the options for progress differ. OpenBSD's openrsync accepts no list of files and is refused. Remote paths are gpurun's own
(``[A-Za-z0-9._/@+-]``); local names are given in a file, separated by NUL.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from remote_payload.agent.wire.paths import SAFE_PATH
from runner.domain.errors import RsyncMissing, TransferFailed
from runner.domain.host import Host
from runner.transport.openssh import ALIAS
from runner.transport.transfer import rsync_process
from runner.transport.transfer.rsync_process import Meter, Progress

SILENCE_LIMIT = 50.0  # seconds without output; ssh's own limit is 45 s, so that a frozen connection ends within 60
IO_LIMIT = 45.0  # seconds, rsync's own --timeout
SLOW_DISK = 10e6  # bytes a second: no disk is assumed to read more slowly
INSTALL = "On a Mac: brew install rsync, and open a new terminal. On Linux: apt install rsync"


@dataclass(frozen=True)
class Rsync:
    """The rsync of this machine."""

    path: str
    version: tuple[int, int, int]
    openrsync: bool

    @property
    def reports_total(self) -> bool:
        """Whether it can report the bytes copied of all files together; if not, it reports them for each file."""
        return not self.openrsync and self.version >= (3, 1, 0)

    @property
    def progress(self) -> list[str]:
        """The options that make it print its progress."""
        if self.reports_total:
            return ["--info=progress2", "--no-inc-recursive", "--outbuf=N"]
        # A fixed word instead of each file's name, which could look like a number of bytes.
        return ["--progress", "--out-format=file"]


@functools.cache
def local_rsync() -> Rsync:
    """The rsync of this machine. Raises RsyncMissing with the command that installs it."""
    path = shutil.which("rsync")
    if path is None:
        raise RsyncMissing("there is no rsync on this machine", hint=INSTALL)
    output = subprocess.run(
        [path, "--version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # OpenBSD's openrsync prints its version there
        text=True,
        errors="replace",
    ).stdout
    return parse_version(path, output)


def parse_version(path: str, output: str) -> Rsync:
    """The rsync that prints ``output`` for ``--version``. Apple's prints "openrsync", and that it is compatible with 2.6.9.

    Raises RsyncMissing for OpenBSD's openrsync, which implements an older protocol.
    """
    found = re.search(r"rsync +version v?(\d+)\.(\d+)\.(\d+)", output)
    version = (int(found[1]), int(found[2]), int(found[3])) if found else (2, 6, 9)
    protocol = re.search(r"protocol version (\d+)", output)
    openrsync = "openrsync" in output
    if openrsync and (protocol is None or int(protocol[1]) < 29):
        raise RsyncMissing(
            f"{path} is OpenBSD's openrsync, which cannot copy a list of files",
            meaning="Nothing was copied.",
            hint=INSTALL,
        )
    return Rsync(path, version, openrsync)


def push(
    host: Host,
    source: Path,
    names: Sequence[str],
    target: str,
    *,
    size: int = 0,
    link_dest: Sequence[str] = (),
    checksum: bool = False,
    ignore_times: bool = False,
    compress: bool = False,
    progress: Progress | None = None,
) -> None:
    """Copies these files of ``source`` into the folder ``target`` on the box. Those that equal a file in ``link_dest`` become hard links.

    Files are equal if they have the same size and time (to the second), with ``checksum`` the same content. With ``ignore_times`` no file
    is taken for equal, and only the parts that differ are sent. ``size``: bytes of all files; where files are compared, all of these may be
    read first. Never ``--inplace``: files of a snapshot are shared. Raises TransferInterrupted (another try goes on from there) or
    TransferFailed.
    """
    options = ["-rlpt", "--partial"]
    if checksum:
        options.append("--checksum")
    if ignore_times:
        options.append("--ignore-times")
    options += [f"--link-dest={safe_path(path)}" for path in link_dest]
    there = f"{ALIAS}:{safe_path(target)}/"
    compared = size if link_dest or checksum else 0
    dangling = _dangling(source, names) if local_rsync().openrsync else []
    listed = [name for name in names if name not in dangling] if dangling else names
    _transfer(host, options, listed, (f"{source}/", there), to_read=compared, compress=compress, progress=progress)
    if dangling:
        with tempfile.TemporaryDirectory(prefix="gpurun-rsync-") as scratch:
            for name in dangling:
                link = Path(scratch, name)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.readlink(source / name))
            _transfer(host, ["-rl"], None, (f"{scratch}/", there), to_read=0, compress=compress, progress=None)


def _dangling(source: Path, names: Sequence[str]) -> list[str]:
    """The links whose target does not exist. Apple's openrsync 182 copies them with a folder, but fails where one is in the list."""
    return [name for name in names if os.path.islink(source / name) and not os.path.exists(source / name)]


def pull(
    host: Host,
    source: str,
    names: Sequence[str],
    folder: Path,
    *,
    go_on: bool = False,
    max_size: int | None = None,
    compress: bool = False,
    progress: Progress | None = None,
) -> None:
    """Copies the named files below ``source`` on the box into ``folder``, which must have the same name as the source.

    Regular files only, no owners, no links. ``--inplace`` is safe here: no file in the folder is shared. With ``go_on`` a file that is here
    already is the beginning of its new content, and only the rest is sent. Without it the contents are compared, and equal parts are not
    sent again; ``--ignore-times`` because equal size and time prove nothing. Raises as ``push`` does.
    """
    parent, _, last = safe_path(source).rpartition("/")
    if folder.name != last:
        raise ValueError(f"{folder} is not called {last}")
    options = ["-rt", "--inplace", "--ignore-times"]
    if go_on:
        options.append("--append")
    if max_size is not None:
        options.append(f"--max-size={max_size}")
    for each in {(folder / name).parent for name in names}:
        each.mkdir(
            parents=True, exist_ok=True
        )  # with this machine's modes: rsync would copy those of the box's folders
    # The folder's name comes first: Apple's rsync takes a name that begins with "#" or ";" for a comment where it asks another one.
    below = [f"{last}/{name}" for name in names]
    where = f"{ALIAS}:{parent}/", f"{folder.parent}/"
    _transfer(host, options, below, where, to_read=_size(folder, names), compress=compress, progress=progress)


def _size(folder: Path, names: Sequence[str]) -> int:
    """Bytes of those that exist."""
    found = (folder / name for name in names)
    return sum(os.lstat(path).st_size for path in found if os.path.lexists(path))


def _transfer(
    host: Host,
    options: list[str],
    names: Sequence[str] | None,
    where: tuple[str, str],
    *,
    to_read: int,
    compress: bool,
    progress: Progress | None,
) -> None:
    """Runs rsync for these names, None for all files. ``to_read``: bytes that either end may read before rsync prints anything."""
    rsync, patience = local_rsync(), to_read / SLOW_DISK
    with tempfile.TemporaryDirectory(prefix="gpurun-rsync-") as scratch:
        arguments = [
            *options,
            *rsync.progress,
            f"--timeout={round(IO_LIMIT + patience)}",
            *(["-z"] if compress else []),
            *(["--from0", f"--files-from={name_list(names, Path(scratch))}"] if names is not None else []),
            *where,
        ]
        rsync_process.run(
            host, rsync.path, arguments, SILENCE_LIMIT + patience, Meter(total=rsync.reports_total), progress
        )


def safe_path(path: str) -> str:
    """The path itself. Raises TransferFailed for one with characters that mean something to a shell on the box."""
    if not SAFE_PATH.fullmatch(path) or path.startswith("-"):
        raise TransferFailed(f"the path {path!r} on the box has characters that rsync's remote shell could misread")
    return path


def name_list(names: Sequence[str], scratch: Path) -> Path:
    """A file with the names, NUL-separated, for ``--files-from`` and ``-T``."""
    file = scratch / "names"
    # "./" because rsync takes a line that begins with # or ; for a comment, even with --from0.
    file.write_bytes(b"".join(b"./" + os.fsencode(name) + b"\0" for name in names))
    return file
