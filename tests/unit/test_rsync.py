"""runner/transport/rsync.py: the argv built from what is there."""

from pathlib import Path

import pytest

from runner.domain.errors import HostKeyChanged, RsyncMissing, TransferFailed, TransferInterrupted
from runner.domain.host import Host
from runner.transport import rsync

HOST = Host(typed="h", hostname="h", port=22, user="u")
GNU = "rsync  version 3.2.7  protocol version 31\nCopyright (C) 1996-2022 by Andrew Tridgell"
OPEN = "openrsync: protocol version 29\nrsync version 2.6.9 compatible\n"


@pytest.mark.parametrize(
    ("said", "version", "openrsync", "modern"),
    [
        (GNU, (3, 2, 7), False, True),
        (OPEN, (2, 6, 9), True, False),
        ("rsync  version 3.0.9  protocol", (3, 0, 9), False, False),
        ("?", (2, 6, 9), False, False),
    ],
)
def test_the_version_says_what_the_argv_may_hold(
    said: str, version: tuple[int, int, int], openrsync: bool, modern: bool
) -> None:
    found = rsync.parse_version("/usr/bin/rsync", said)
    assert (found.version, found.openrsync, found.modern) == (version, openrsync, modern)


def test_openrsync_gets_no_option_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a dir").mkdir()
    (tmp_path / "a dir" / "file").write_text("x")
    (tmp_path / "link").symlink_to("a dir/file")
    (tmp_path / "not chosen").write_text("x")
    ran: list[list[str]] = []

    def run(host: Host, arguments: list[str], progress: object) -> None:
        ran.append(arguments)
        source = Path(next(word for word in arguments if word.startswith("/")))
        assert sorted(path.name for path in source.iterdir()) == ["a dir", "link"]
        assert (source / "link").is_symlink()

    monkeypatch.setattr(rsync, "local_rsync", lambda: rsync.parse_version("/usr/bin/rsync", OPEN))
    monkeypatch.setattr(rsync, "_run", run)
    rsync.push(HOST, tmp_path, ["a dir/file", "link"], "/root/.gpurun-box/incoming/x")
    options = {word.split("=")[0] for word in ran[0] if word.startswith("-")}
    assert not options & {"--info", "--files-from", "--from0", "--mkpath", "--append-verify", "--protect-args"}


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
    ],
)
def test_each_way_to_fail_is_told_apart(code: int, said: bytes, silent: bool, expected: type[Exception]) -> None:
    error = rsync._explain(HOST, code, said, silent)
    assert type(error) is expected
    assert error.hint
