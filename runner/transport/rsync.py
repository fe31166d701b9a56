"""Bulk copies by plain rsync: argv in, progress out, and an end to every frozen peer.

The argv is built from what ``rsync --version`` says here and on the box: macOS may ship openrsync, which lacks
``--info``, ``--files-from`` and more. Remote paths are gpurun's own (``[A-Za-z0-9._/-]``); local names travel NUL-separated in a file.
"""

from __future__ import annotations

import functools
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from remote_payload.agent.paths import SAFE_PATH
from runner.domain.errors import HostKeyChanged, RsyncMissing, TransferError, TransferFailed, TransferInterrupted
from runner.domain.host import Host
from runner.domain.terminal import clean_lines
from runner.transport import quiet
from runner.transport.openssh import ALIAS, ssh_argv

SILENCE_LIMIT = 50.0  # seconds without a byte of progress; with ssh's own 45 s a frozen peer ends within 60
TIMEOUTS = (30, 35)  # rsync's exit codes for its own --timeout, and for no connection
_PROGRESS = re.compile(rb"\s*([\d,.]+)\s+(\d+)%")

Progress = Callable[[int], None]  # bytes so far
_noisy: set[str] = set()  # hosts whose login shell prints before the command runs


@dataclass(frozen=True)
class Rsync:
    """The rsync of this machine."""

    path: str
    version: tuple[int, int, int]
    openrsync: bool

    @property
    def modern(self) -> bool:
        return not self.openrsync and self.version >= (3, 2, 0)


@functools.cache
def local_rsync() -> Rsync:
    """What is installed here. Raises RsyncMissing with the line that installs it."""
    path = shutil.which("rsync")
    if path is None:
        raise RsyncMissing("there is no rsync on this machine", hint="apt install rsync, or: brew install rsync")
    said = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    ).stdout
    return parse_version(path, said)


def parse_version(path: str, said: str) -> Rsync:
    """From the text of ``rsync --version``; openrsync calls itself so, and claims to be compatible with 2.6.9."""
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2]), int(found[3])) if found else (2, 6, 9)
    return Rsync(path, version, "openrsync" in said)


def push(
    host: Host,
    source: Path,
    names: Sequence[str],
    target: str,
    *,
    link_dest: Sequence[str] = (),
    checksum: bool = False,
    ignore_times: bool = False,
    compress: bool = False,
    progress: Progress | None = None,
) -> None:
    """Copies the named files of ``source`` into the folder ``target`` on the box; what one in ``link_dest`` equals becomes a hard link.

    Equal is what has the same size and time (to the second), or with ``checksum`` the same content; with ``ignore_times`` nothing is,
    and only what differs of each file is sent.
    Never ``--inplace``: a snapshot's files are shared. Raises TransferInterrupted (try again, it goes on from there) or TransferFailed.
    """
    rsync = local_rsync()
    options = ["-rlpt", "--partial", *_common(rsync, compress)]
    if checksum:
        options.append("--checksum")
    if ignore_times:
        options.append("--ignore-times")
    options += [f"--link-dest={safe_path(path)}" for path in link_dest]
    with tempfile.TemporaryDirectory(prefix="gpurun-push-") as scratch:
        if rsync.openrsync:
            source = _mirror(source, names, Path(scratch))
        else:
            options += ["--from0", f"--files-from={name_list(names, Path(scratch))}"]
        _run(host, [*options, f"{source}/", f"{ALIAS}:{safe_path(target)}/"], progress)


def pull(
    host: Host,
    source: str,
    names: Sequence[str],
    staging: Path,
    *,
    basis: Path | None = None,
    max_size: int | None = None,
    compress: bool = False,
    progress: Progress | None = None,
) -> None:
    """Brings the named files below ``source`` on the box into ``staging``: regular files only, no owners, no permissions, no links.

    ``--inplace`` is right here: nothing in staging is shared, and an interrupted file is gone on with. ``basis`` is an
    earlier copy whose equal parts are not sent again; ``--ignore-times`` because equal size and time prove nothing here.
    """
    rsync = local_rsync()
    staging.mkdir(parents=True, exist_ok=True)
    options = ["-rt", "--inplace", "--ignore-times", *_common(rsync, compress)]
    if max_size is not None and not rsync.openrsync:
        options.append(f"--max-size={max_size}")
    if basis is not None and basis.is_dir():
        options.append(f"--compare-dest={basis.absolute()}")
    with tempfile.TemporaryDirectory(prefix="gpurun-pull-") as scratch:
        if rsync.openrsync:
            roots = sorted({name.split("/", 1)[0] for name in names})
            sources = [f"{ALIAS}:{safe_path(source)}/{safe_path(root)}" for root in roots]
        else:
            options += ["--from0", "--no-implied-dirs", f"--files-from={name_list(names, Path(scratch))}"]
            sources = [f"{ALIAS}:{safe_path(source)}/"]
        _run(host, [*options, *sources, f"{staging}/"], progress)


def _common(rsync: Rsync, compress: bool) -> list[str]:
    options = ["--timeout=45"]
    if not rsync.openrsync and rsync.version >= (3, 1, 0):
        options += ["--info=progress2", "--no-inc-recursive", "--outbuf=N"]
    if compress:
        options.append("-z")
    return options


def safe_path(path: str) -> str:
    """The path itself. Raises TransferFailed for one that a shell on the box could read in its own way."""
    if not SAFE_PATH.fullmatch(path) or path.startswith("-"):
        raise TransferFailed(f"the path {path!r} on the box has characters that rsync's remote shell could misread")
    return path


def name_list(names: Sequence[str], scratch: Path) -> Path:
    """A file with the names, NUL-separated, for ``--files-from`` and ``-T``."""
    file = scratch / "names"
    # "./" because rsync takes a line that begins with # or ; for a comment, even with --from0.
    file.write_bytes(b"".join(b"./" + os.fsencode(name) + b"\0" for name in names))
    return file


def _mirror(source: Path, names: Sequence[str], scratch: Path) -> Path:
    """For openrsync, which cannot be given a list: the same files, hard-linked (else copied) into a folder of their own."""
    for name in names:
        target = scratch / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_symlink():
            os.symlink(os.readlink(source / name), target)
            continue
        try:
            os.link(source / name, target)
        except OSError:
            shutil.copy2(source / name, target)
    (scratch / "tree").mkdir(exist_ok=True)
    return scratch / "tree"


def _run(host: Host, arguments: list[str], progress: Progress | None) -> None:
    code, errors, silent = _copy(host, arguments, progress)
    if b"is your shell clean" in errors and host.known_as not in _noisy:
        _noisy.add(host.known_as)
        code, errors, silent = _copy(host, arguments, progress)
    if code != 0 or silent:
        raise _explain(host, code, errors, silent)


def _copy(host: Host, arguments: list[str], progress: Progress | None) -> tuple[int, bytes, bool]:
    """One run of rsync: its exit code, the end of its stderr, and whether it was ended because it had fallen silent."""
    filtered = [sys.executable, "-I", quiet.__file__] if host.known_as in _noisy else []
    remote_shell = " ".join(_quoted(word) for word in [*filtered, *ssh_argv(host)])
    argv = [local_rsync().path, "-e", remote_shell, *arguments]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # its ssh dies with it, and Ctrl-C comes to us first
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        errors, silent = _watch(process, progress)
    except BaseException:
        _end(process)
        raise
    if silent:
        _end(process)
    return process.wait(), errors, silent


def _quoted(word: str) -> str:
    # rsync splits -e itself: it knows double quotes, and nothing else.
    return f'"{word}"' if " " in word else word


def _watch(process: subprocess.Popen[bytes], progress: Progress | None) -> tuple[bytes, bool]:
    """Reads both pipes until they close; gives the end of stderr, and whether it fell silent."""
    assert process.stdout is not None and process.stderr is not None
    errors = b""
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
                elif progress is not None and (found := _PROGRESS.findall(chunk)):
                    progress(int(re.sub(rb"\D", b"", found[-1][0])))
            if time.monotonic() - heard > SILENCE_LIMIT:
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


def _explain(host: Host, code: int, errors: bytes, silent: bool) -> TransferError | HostKeyChanged:
    said = clean_lines(errors.decode("utf-8", "replace"), 1500)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
        return HostKeyChanged(
            f"the host key of {host.known_as} is not the pinned one (seen by OpenSSH)",
            meaning="Nothing was sent.",
            hint=f"If you know that the box was replaced: gpurun hosts forget {host.known_as}",
        )
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return TransferFailed(
            f"a disk is full:\n{said}", hint="Free space there (gpurun clean, for a box), then repeat the command."
        )
    if "command not found" in said or "rsync: not found" in said:
        return RsyncMissing(
            "there is no rsync on the box", hint="apt-get install rsync there, then repeat the command."
        )
    if silent or code in (10, 12, 20, 30, 35, 255) or code < 0:
        why = "the other side fell silent" if silent else (said.splitlines() or [f"rsync ended with {code}"])[-1]
        return TransferInterrupted(
            f"copying was cut short: {why}",
            meaning="What arrived is kept; nothing incomplete stands under its final name.",
            hint="Repeat the command: it goes on from there.",
            retryable=not (silent or code in TIMEOUTS or "imed out" in said),  # most of a minute has gone by already
        )
    if code == 24 or "file has vanished" in said:
        return TransferFailed(
            f"files changed while they were copied:\n{said}", hint="Repeat the command when they are at rest."
        )
    return TransferFailed(f"rsync ended with {code}:\n{said}", hint="Mend what rsync names, then repeat the command.")
