"""The digest of a selection changes with what is sent and with nothing else; a change during the push is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_payload.agent.box import snapshot
from runner.domain.recorded_job import read_job
from runner.push import digest as digests
from runner.push.digest import changed, fingerprint, read_contents
from runner.push.selection import Selection, select_code
from tests.support.hostile_names import hostile_tree

AT = 1_700_000_000_123_456_789


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    for name in ("train.py", "src/a.py", "src/b.py"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(AT, AT))
    (tmp_path / "link").symlink_to("train.py")
    return tmp_path


def select(folder: Path) -> Selection:
    return select_code(read_job({"name": "a", "command": ["python", "train.py"]}, folder))


def digest(selection: Selection, checksum: bool = False) -> str:
    return digests.digest(selection, read_contents(selection) if checksum else None)


def edit_keeping_size_and_time(folder: Path) -> None:
    (folder / "train.py").write_text("TRAIN.PY")
    os.utime(folder / "train.py", ns=(AT, AT))


def relink(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("src/a.py")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a size": lambda folder: (folder / "train.py").write_text("longer than it was"),
    "permissions": lambda folder: (folder / "train.py").chmod(0o755),
    "a name": lambda folder: (folder / "src/a.py").rename(folder / "src/c.py"),
    "a file removed": lambda folder: (folder / "src/a.py").unlink(),
    "a link's target": relink,
    "a file in place of a link": lambda folder: ((folder / "link").unlink(), (folder / "link").write_text("train.py")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("checksum", [False, True])
def test_every_change_of_what_is_sent_changes_the_digest_and_is_noticed(
    change: str, checksum: bool, folder: Path
) -> None:
    before = select(folder)
    name = digest(before, checksum)
    assert digest(select(folder), checksum) == name
    assert changed(before) == []
    CHANGES[change](folder)
    assert digest(select(folder), checksum) != name
    assert len([path for path in changed(before) if not path.endswith("/")]) == 1


def test_a_new_file_changes_the_digest(folder: Path) -> None:
    before = digest(select(folder))
    (folder / "new.py").write_text("")
    assert digest(select(folder)) != before


def test_a_touched_file_is_another_snapshot_by_time_and_the_same_by_checksum(folder: Path) -> None:
    by_time, by_content = digest(select(folder)), digest(select(folder), checksum=True)
    os.utime(folder / "train.py", ns=(AT + 1, AT + 1))
    assert digest(select(folder)) != by_time
    assert digest(select(folder), checksum=True) == by_content


def test_only_the_checksum_sees_an_edit_that_keeps_size_and_time(folder: Path) -> None:
    by_time, by_content = digest(select(folder)), digest(select(folder), checksum=True)
    edit_keeping_size_and_time(folder)
    assert digest(select(folder)) == by_time
    assert digest(select(folder), checksum=True) != by_content


def test_the_digest_does_not_depend_on_where_the_folder_lies(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = digest(select(folder))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    folder.rename(elsewhere)
    assert digest(select(elsewhere)) == name


def test_names_cannot_be_arranged_to_collide(tmp_path: Path) -> None:
    """Two trees whose names and sizes read the same when they are only strung together."""
    hostile_tree(tmp_path)
    seen = set()
    for names in (("a", "b"), ("a\nb",), ("ab",), ("a b",)):
        for name in names:
            (tmp_path / name).write_text("")
            os.utime(tmp_path / name, ns=(AT, AT))
        seen.add(digest(select(tmp_path)))
        for name in names:
            (tmp_path / name).unlink()
    assert len(seen) == 4


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("checksum", [False, True])
def test_the_box_says_the_same_of_a_tree_as_the_laptop_until_it_changes(
    change: str, checksum: bool, folder: Path
) -> None:
    selection = select(folder)
    meant = fingerprint(selection, read_contents(selection) if checksum else None)
    assert snapshot.fingerprint(str(folder), checksum) == meant
    CHANGES[change](folder)
    assert snapshot.fingerprint(str(folder), checksum) != meant


def test_what_is_too_much_or_of_another_kind_is_another_tree(folder: Path) -> None:
    meant = fingerprint(select(folder))
    os.mkfifo(folder / "pipe")
    assert snapshot.fingerprint(str(folder)) != meant


def test_a_tree_without_permissions_can_be_compared_too(folder: Path) -> None:
    meant = fingerprint(select(folder), permissions=False)
    (folder / "train.py").chmod(0o777)
    assert snapshot.fingerprint(str(folder), permissions=False) == meant


def test_names_that_come_and_go_during_a_push_are_noticed_in_their_folder(folder: Path) -> None:
    before = select(folder)
    (folder / "src" / "new.py").write_text("")
    assert changed(before) == ["src/"]


def test_on_a_filesystem_of_whole_seconds_two_edits_within_one_are_two(folder: Path) -> None:
    now = int(time.time()) * 10**9
    os.utime(folder / "train.py", ns=(now, now))
    before = digest(select(folder))
    (folder / "train.py").write_text("TRAIN.PY")
    os.utime(folder / "train.py", ns=(now, now))
    assert digest(select(folder)) != before
