"""Every rsync that a laptop has against every one that a box has: the same files arrive, and a cut copy goes on."""

from __future__ import annotations

import itertools
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runner.domain import places
from runner.domain.errors import FilesChanged, TransferInterrupted
from runner.domain.host import Host
from runner.transport import known_hosts
from runner.transport.transfer import rsync
from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.cli import Gpurun
from tests.support.hostile_names import hostile_tree
from tests.support.proxy import Direction, Proxy
from tests.support.rsyncs import KINDS, OWN, params, path_with

PAIRS = params(*itertools.product(KINDS, KINDS))
BIG = 4_000_000


@dataclass
class Pair:
    """A laptop and a box, each with its rsync."""

    host: Host
    home: Path  # the box's
    there: str  # the kind of rsync on the box

    @contextmanager
    def through(self, **temper: float) -> Iterator[tuple[Host, Proxy]]:
        """The same host behind a link with a temper."""
        with Proxy(self.host.port, **temper) as link:
            host = replace(self.host, port=link.port)
            pinned = known_hosts.pinned(places.known_hosts(), self.host.known_as)
            known_hosts.pin(places.known_hosts(), host.known_as, pinned[0])
            yield host, link


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    here, there = request.param
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    box = Box(Gpurun(tmp_path / "state", {}))
    if there != OWN:
        box.configure(PATH=path_with(there, tmp_path / "bin there"))
    monkeypatch.setenv("PATH", path_with(here, tmp_path / "bin here"))
    rsync.local_rsync.cache_clear()
    host = box.local.ensure()
    known_hosts.pin(places.known_hosts(), host.known_as, known_hosts.Key(*box.local.host_key))
    yield Pair(host, box.home, there)
    box.local.stop()
    rsync.local_rsync.cache_clear()


every_pair = pytest.mark.parametrize("pair", PAIRS, indirect=True)
every_laptop = pytest.mark.parametrize("pair", params(*((kind, OWN) for kind in KINDS)), indirect=True)


def look(folder: Path) -> dict[str, tuple[object, ...]]:
    """All files and links below it: what they are, hold and allow, and their time in seconds."""
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = ("link", os.readlink(path))
        elif path.is_file():
            status = path.stat()
            found[str(path.relative_to(folder))] = (
                path.read_bytes(), stat.S_IMODE(status.st_mode), int(status.st_mtime)
            )  # fmt: skip
    return found


def project(folder: Path) -> list[str]:
    """Files with hostile names, links, modes and times; the names to send."""
    folder.mkdir()
    names = list(hostile_tree(folder))
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/script").write_text("#!/bin/sh\n")
    (folder / "deep/er/script").chmod(0o751)
    os.utime(folder / "deep/er/script", (1_000_000_000, 1_000_000_000))
    (folder / "deep/link").symlink_to("er/script")
    (folder / "broken").symlink_to("nowhere")
    (folder / "folder link").symlink_to("deep")
    (folder / "not chosen").write_text("x")
    return [*names, "deep/er/script", "deep/link", "folder link", "broken"]


def chosen(folder: Path, names: list[str]) -> dict[str, tuple[object, ...]]:
    return {name: facts for name, facts in look(folder).items() if name in names}


@every_pair
def test_what_is_pushed_arrives_as_it_is_and_nothing_else_does(pair: Pair, tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = project(source)
    rsync.push(pair.host, source, names, str(pair.home / "code"), compress=True)
    assert look(pair.home / "code") == chosen(source, names)


@every_pair
def test_the_next_push_links_what_is_equal_and_leaves_the_earlier_one_as_it_was(pair: Pair, tmp_path: Path) -> None:
    source, first, second = tmp_path / "source", pair.home / "first", pair.home / "second"
    names = project(source)
    rsync.push(pair.host, source, names, str(first))
    before = look(first)
    (source / "deep/er/script").write_text("another, and longer")
    (source / "new").write_text("new")
    names = [*(name for name in names if name != "broken"), "new"]
    nothing = pair.home / "nothing"
    nothing.mkdir()
    rsync.push(pair.host, source, names, str(second), size=10_000, link_dest=[str(nothing), str(first)])
    assert look(first) == before and look(second) == chosen(source, names)
    same = [name for name in names if name in before and (second / name).is_file() and not (second / name).is_symlink()]
    linked = [name for name in same if os.path.samefile(first / name, second / name)]
    assert sorted(set(same) - set(linked)) == ["deep/er/script"]


@every_pair
@pytest.mark.parametrize("how", ["checksum", "ignore_times"])
def test_equal_size_and_time_hide_no_other_content_where_content_is_asked_for(
    pair: Pair, tmp_path: Path, how: str
) -> None:
    source, first, second = tmp_path / "source", pair.home / "first", pair.home / "second"
    source.mkdir()
    for name in ("same", "other"):
        (source / name).write_text("one")
        os.utime(source / name, (1_000_000_000, 1_000_000_000))
    rsync.push(pair.host, source, ["same", "other"], str(first))
    (source / "other").write_text("two")
    os.utime(source / "other", (1_000_000_000, 1_000_000_000))
    rsync.push(pair.host, source, ["same", "other"], str(second), link_dest=[str(first)], **{how: True})  # type: ignore[arg-type]
    assert [(second / name).read_text() for name in ("same", "other")] == ["one", "two"]
    assert (first / "other").read_text() == "one"
    assert how == "ignore_times" or os.path.samefile(first / "same", second / "same")


@every_pair
def test_what_is_pulled_are_the_named_files_with_folders_of_our_own(pair: Pair, tmp_path: Path) -> None:
    outputs, staged = pair.home / "outputs", tmp_path / "staging/outputs"
    names = [name for name in project(outputs) if name != "broken"]  # a manifest lists no links
    (outputs / "deep").chmod(0o500)
    (outputs / "large").write_bytes(bytes(3000))
    rsync.pull(pair.host, str(outputs), [*names, "large"], staged, max_size=2000, compress=True)
    regular = {name: facts[0] for name, facts in chosen(outputs, names).items() if facts[0] != "link"}
    assert {name: facts[0] for name, facts in look(staged).items()} == regular
    assert staged.joinpath("deep").stat().st_mode & 0o700 == 0o700


@every_pair
def test_a_file_that_went_away_is_told_apart_and_the_others_come_without_it(pair: Pair, tmp_path: Path) -> None:
    outputs, staged = pair.home / "outputs", tmp_path / "staging/outputs"
    (outputs / "a").mkdir(parents=True)
    (outputs / "a/here").write_text("here")
    with pytest.raises(FilesChanged):
        rsync.pull(pair.host, str(outputs), ["a/gone", "a/here", "b/gone"], staged)
    rsync.pull(pair.host, str(outputs), ["a/here"], staged)
    assert look(staged).keys() == {"a/here"}


@every_pair
def test_of_a_changed_file_only_what_changed_is_pulled_and_a_begun_one_is_gone_on_with(
    pair: Pair, tmp_path: Path
) -> None:
    outputs, staged = pair.home / "outputs", tmp_path / "staging/outputs"
    outputs.mkdir()
    staged.mkdir(parents=True)
    earlier = random.Random(1).randbytes(BIG)
    now = bytearray(earlier)
    now[BIG // 2 : BIG // 2 + 5000] = bytes(5000)
    (outputs / "model").write_bytes(now)
    (staged / "model").write_bytes(earlier)
    with pair.through() as (host, link):
        rsync.pull(host, str(outputs), ["model"], staged)
        assert (staged / "model").read_bytes() == now and crossed(link) < BIG * 0.06
        (staged / "model").write_bytes(now[: BIG // 2])
        link.count_anew()
        rsync.pull(host, str(outputs), ["model"], staged, go_on=True)
        assert (staged / "model").read_bytes() == now and crossed(link) < BIG * 0.53
        link.count_anew()
        rsync.pull(host, str(outputs), ["model"], staged, go_on=True)
        assert (staged / "model").read_bytes() == now and crossed(link) < BIG * 0.02


def crossed(link: Proxy) -> int:
    return link.trace.bytes("to client") + link.trace.bytes("to server")


@every_pair
@pytest.mark.parametrize("direction", ["to server", "to client"])
def test_a_copy_that_is_cut_goes_on_with_what_has_arrived(pair: Pair, tmp_path: Path, direction: Direction) -> None:
    source, target = tmp_path / "source", pair.home / "first"
    if direction == "to client":
        source, target = pair.home / "outputs", tmp_path / "staging/outputs"
    source.mkdir()
    (source / "model").write_bytes(os.urandom(BIG))
    with pair.through(rate=8e6) as (host, link):
        link.cut_after(BIG * 3 // 4, direction)
        with pytest.raises(TransferInterrupted):
            copy(host, direction, source, target)
        wait_until(lambda: (target / "model").exists())  # the box's rsync learns of it later than we do
        link.set(rate=1e9)
        link.count_anew()
        if direction == "to server":
            rsync.push(host, source, ["model"], str(pair.home / "second"), size=BIG, link_dest=[str(target)])
            target = pair.home / "second"
        else:
            rsync.pull(host, str(source), ["model"], target, go_on=True)
        # Apple's openrsync compares with no file of another folder: pushed to it, a cut file begins anew.
        assert crossed(link) < BIG * 0.7 or (pair.there, direction) == ("apple", "to server")
    assert (target / "model").read_bytes() == (source / "model").read_bytes()


def copy(host: Host, direction: Direction, source: Path, target: Path) -> None:
    if direction == "to server":
        rsync.push(host, source, ["model"], str(target), size=BIG)
    else:
        rsync.pull(host, str(source), ["model"], target)


@every_laptop
@pytest.mark.parametrize("direction", ["to server", "to client"])
def test_a_copy_that_takes_longer_than_the_limit_is_not_ended_while_bytes_move(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: Direction
) -> None:
    monkeypatch.setattr(rsync, "SILENCE_LIMIT", 5.0)
    source, target = tmp_path / "source", pair.home / "first"
    if direction == "to client":
        source, target = pair.home / "outputs", tmp_path / "staging/outputs"
    source.mkdir()
    (source / "model").write_bytes(os.urandom(3 * BIG))
    # The kernel's buffers take up to 4 MB of it at once, so that the last bytes are under way for 3 seconds without a word.
    began = time.monotonic()
    with pair.through(rate=1.2e6) as (host, _):
        copy(host, direction, source, target)
    assert time.monotonic() - began > 5
    assert (target / "model").read_bytes() == (source / "model").read_bytes()


@every_laptop
def test_a_frozen_link_ends_the_copy_at_the_limit(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync, "SILENCE_LIMIT", 2.0)
    (pair.home / "outputs").mkdir()
    (pair.home / "outputs/model").write_bytes(os.urandom(BIG))
    with pair.through(rate=2e6) as (host, link):
        link.cut_after(BIG, "to server")
        with pytest.raises(TransferInterrupted, match="no byte moved for 2 seconds"):
            rsync.pull(
                host,
                str(pair.home / "outputs"),
                ["model"],
                tmp_path / "staging/outputs",
                progress=lambda _: link.freeze(),
            )


@every_laptop
def test_reading_again_what_is_staged_may_take_its_time(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stand_in: a slow disk. rsync says nothing while it reads what is staged; here it sleeps before it begins."""
    monkeypatch.setattr(rsync, "SILENCE_LIMIT", 1.0)
    monkeypatch.setattr(rsync, "SLOW_DISK", BIG / 10)
    outputs, staged = pair.home / "outputs", tmp_path / "staging/outputs"
    for folder in (outputs, staged):
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(random.Random(str(folder)).randbytes(BIG))
    slow = tmp_path / "bin slow/rsync"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n[ "$1" = --version ] || sleep 3\nexec "{rsync.local_rsync().path}" "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=":")
    rsync.local_rsync.cache_clear()
    rsync.pull(pair.host, str(outputs), ["model"], staged)
    assert (staged / "model").read_bytes() == (outputs / "model").read_bytes()
    (staged / "model").unlink()
    with pytest.raises(TransferInterrupted, match="no byte moved"):
        rsync.pull(pair.host, str(outputs), ["model"], staged)
