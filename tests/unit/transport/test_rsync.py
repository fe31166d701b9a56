"""runner/transport/transfer/rsync.py: the argv built from what is there."""

from pathlib import Path

import pytest

from runner.domain.errors import FilesChanged, HostKeyChanged, RsyncMissing, TransferFailed, TransferInterrupted
from runner.domain.host import Host
from runner.transport.transfer import rsync, rsync_process
from runner.transport.transfer.rsync_process import Ended, Meter

HOST = Host(typed="h", hostname="h", port=22, user="u")
GNU = "rsync  version 3.2.7  protocol version 31\nCopyright (C) 1996-2022 by Andrew Tridgell"
APPLE = "openrsync: protocol version 29\nrsync version 2.6.9 compatible\n"


@pytest.mark.parametrize(
    ("said", "version", "openrsync", "reports_total"),
    [
        (GNU, (3, 2, 7), False, True),
        (APPLE, (2, 6, 9), True, False),
        ("rsync  version 3.0.9  protocol", (3, 0, 9), False, False),
        ("rsync  version v3.4.1  protocol version 32", (3, 4, 1), False, True),
        ("?", (2, 6, 9), False, False),
    ],
)
def test_the_version_says_how_progress_is_asked_for(
    said: str, version: tuple[int, int, int], openrsync: bool, reports_total: bool
) -> None:
    found = rsync.parse_version("/usr/bin/rsync", said)
    assert (found.version, found.openrsync, found.reports_total) == (version, openrsync, reports_total)
    assert ("--info=progress2" in found.progress) == reports_total and ("--progress" in found.progress) != reports_total


@pytest.mark.parametrize(
    "said",
    ["openrsync: protocol version 27\nrsync version 3.1.3 compatible\n", "openrsync 0.5.0 (protocol version 27)"],
)
def test_the_openrsync_of_openbsd_is_refused_with_the_line_that_installs_another(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rsync").write_text(f"#!/bin/sh\nprintf '{said}' >&2\n")
    (tmp_path / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    rsync.local_rsync.cache_clear()
    try:
        with pytest.raises(RsyncMissing) as caught:
            rsync.local_rsync()
    finally:
        rsync.local_rsync.cache_clear()
    assert "brew install rsync" in caught.value.hint and str(tmp_path) in caught.value.message


OF_EACH_FILE = (
    b"building file list ... \n 0 files...\r3 files to consider\nfile\n",
    b"       32768   0%    0.00kB/s    0:00:00\r     2129920  26%    1.99MB/s    0:0",
    b"0:02\r     8000000 100%    1.92MB/s    0:00:03 (xfer#1, to-check=1/3)\nfile\n",
    b"       1000000  25%    1.91MB/s   00:00:01\r     4000000 100%    1.92MB/s   00:00:01 (xfer#2, to-check=2/3)\n",
)


def test_what_is_said_of_each_file_is_added_up() -> None:
    meter = Meter(total=False)
    assert [meter.read(chunk) for chunk in OF_EACH_FILE] == [None, 32768, 8_000_000, 12_000_000]


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_wherever_the_pipe_tears_a_line_the_sum_is_the_same(cut: int) -> None:
    meter, said = Meter(total=False), b"".join(OF_EACH_FILE)
    told = [meter.read(said[at : at + cut]) or 0 for at in range(0, len(said), cut)]
    assert max(told) == 12_000_000


def test_what_is_said_of_all_files_is_told_at_once() -> None:
    meter = Meter(total=True)
    said = (b"\r         32,768   0%    0.00kB/s    0:00:00  ", b"\r     41,24", b"0,000  55%  100.00MB/s    0:00:00 ")
    assert [meter.read(chunk) for chunk in said] == [32768, 32768, 41_240_000]


@pytest.mark.parametrize("path", ["/root/a b", "/root/$(x)", "-e", "/root/`x`", "/root/a\nb", "/root/'"])
def test_a_remote_path_that_a_shell_could_read_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed):
        rsync.push(HOST, tmp_path, [], path)


@pytest.mark.parametrize(
    ("code", "said", "silent", "expected"),
    [
        (255, b"@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@", False, HostKeyChanged),
        (255, b"Connection closed by remote host", False, TransferInterrupted),
        (-15, b"", True, TransferInterrupted),
        (11, b"write failed: No space left on device (28)", False, TransferFailed),
        (127, b"bash: rsync: command not found", False, RsyncMissing),
        (30, b"timeout in data send/receive", False, TransferInterrupted),
        (23, b"some files could not be transferred", False, TransferFailed),
        (23, b'link_stat "/root/models/best" failed: No such file or directory (2)', False, FilesChanged),
    ],
)
def test_each_way_to_fail_is_told_apart(code: int, said: bytes, silent: bool, expected: type[Exception]) -> None:
    error = rsync_process.explain(HOST, Ended(code, said, silent), 50)
    assert type(error) is expected
    assert error.hint
