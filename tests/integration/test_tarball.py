"""A tar stream over a real sshd: what arrives is what rsync would have brought, and whatever fails is left to rsync."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.domain import places
from runner.domain.errors import TransferInterrupted
from runner.domain.host import Host
from runner.local_box import embedded
from runner.transport import known_hosts
from runner.transport.transfer import rsync, tarball
from tests.support.hostile_names import HOSTILE_NAMES


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    box = embedded()
    host = box.ensure()
    known_hosts.pin(places.known_hosts(), host.known_as, known_hosts.Key(*box.host_key))
    yield host
    box.stop()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(HOSTILE_NAMES):
        file = os.fsencode(folder / "deep") + b"/" + name
        with open(file, "wb") as target:
            target.write(name * 10)
        os.utime(file, (0, 1_600_000_000 + number))
    (folder / "deep" / "er" / "run.sh").write_text("exit 0")
    (folder / "deep" / "er" / "run.sh").chmod(0o775)
    (folder / "link").symlink_to("deep/er/run.sh")
    return folder


def names(folder: Path) -> list[str]:
    found = [
        os.path.relpath(os.path.join(above, name), folder) for above, _, below in os.walk(folder) for name in below
    ]
    return sorted(found)


def facts(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    found = {}
    for name in names(folder):
        about = os.lstat(folder / name)
        content = (
            os.fsencode(os.readlink(folder / name)) if os.path.islink(folder / name) else (folder / name).read_bytes()
        )
        found[name] = (
            about.st_mode,
            about.st_size,
            0 if os.path.islink(folder / name) else int(about.st_mtime),
            content,
        )
    return found


@pytest.mark.parametrize("compress", [False, True])
def test_names_contents_modes_times_and_links_arrive_as_they_are(
    host: Host, source: Path, tmp_path: Path, compress: bool
) -> None:
    told: list[int] = []
    target = str(tmp_path / "incoming" / "run")
    tarball.push(host, source, names(source), target, told.append, compress=compress)
    assert facts(tmp_path / "incoming" / "run") == facts(source)
    assert told and told[-1] >= sum(size for _, size, _, _ in facts(source).values())


def test_a_user_whose_pipes_may_not_grow_is_served_all_the_same(
    host: Host, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # what a user at pipe-user-pages-soft gets

    monkeypatch.setattr(fcntl, "fcntl", refused)  # stand_in: the limit holds for users without CAP_SYS_RESOURCE only
    tarball.push(host, source, names(source), str(tmp_path / "there"), lambda done: None)
    assert facts(tmp_path / "there") == facts(source)


def test_only_what_is_named_is_sent(host: Host, source: Path, tmp_path: Path) -> None:
    tarball.push(host, source, ["deep/er/run.sh"], str(tmp_path / "there"), lambda done: None)
    assert names(tmp_path / "there") == ["deep/er/run.sh"]


def test_what_is_there_already_is_left_to_rsync(host: Host, source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(TransferInterrupted):
        tarball.push(host, source, names(source), str(tmp_path / "there"), lambda done: None)
    assert names(tmp_path / "there") == []


def test_rsync_goes_on_from_a_stream_that_failed(host: Host, source: Path, tmp_path: Path) -> None:
    listed = [*names(source), "gone"]
    with pytest.raises(TransferInterrupted, match="gone"):
        tarball.push(host, source, listed, str(tmp_path / "there"), lambda done: None)
    rsync.push(host, source, names(source), str(tmp_path / "there"))
    assert facts(tmp_path / "there") == facts(source)


def test_it_pays_for_many_small_files_only() -> None:
    assert tarball.pays(20_000, 20_000 * 4096)
    assert not tarball.pays(20, 20 * 4096) and not tarball.pays(1000, 1000 << 20)
