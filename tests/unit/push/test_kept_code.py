"""The copy of a run's code on this machine: it is what was sent, whatever becomes of the folder, and holds nothing that was not sent."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from runner.domain import places
from runner.push import kept_code
from runner.push.digest import digest
from runner.push.selection import Selection, select_code
from tests.unit.push.test_push_selection import HUB_TOKEN, job, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def select(folder: Path, **fields: object) -> tuple[Selection, str]:
    selection = select_code(job(folder, **fields))
    return selection, digest(selection)


def contents(selection: Selection) -> dict[str, bytes]:
    found = {}
    for entry in selection.files:
        path = selection.root / entry.path
        found[entry.path] = os.readlink(path).encode() if entry.kind == "link" else path.read_bytes()
    return found


def taken() -> int:
    """Bytes of all copies, each file counted once however many names it has."""
    sizes = {}
    for path in places.kept_code().glob("*/**/*"):
        if not path.is_dir():
            sizes[path.lstat().st_ino] = path.lstat().st_size
    return sum(sizes.values())


@pytest.mark.parametrize("seed", range(5))
def test_every_copy_stays_what_its_run_had_through_a_random_history_of_edits(tmp_path: Path, seed: int) -> None:
    draw = random.Random(f"kept-code-{seed}")
    folder, kept = tmp_path / "code", {}
    write(folder, {f"{'abc'[n % 3]}/file{n}.py": f"# {n}" for n in range(6)} | {"train.py": "0"})
    (folder / "link.py").symlink_to("train.py")
    for round in range(12):
        path = draw.choice([each for each in folder.rglob("*") if each.is_file() and not each.is_symlink()])
        act = draw.randrange(5)
        if act == 0 and path.name != "train.py":
            path.unlink()
        elif act == 1:
            path.chmod(draw.choice([0o644, 0o755, 0o600]))
        elif act == 2:
            with open(path, "r+") as file:  # in place: a hard link would change with it
                file.write(f"{draw.random():.17f}"[:17])
        elif act == 3:
            write(folder, {f"new/{round}.py": "new"})
        selection, name = select(folder)
        kept_code.keep(selection, name)
        kept[name] = contents(selection)
    for name, expected in kept.items():
        found = kept_code.find(name)
        assert found is not None and contents(found) == expected and digest(found) == name
    last, name = select(folder)
    found = kept_code.find(name)
    assert found is not None and kept_code.same_content(last, found) == []
    os.utime(folder / "train.py")  # checked out again: another time, the same code
    assert kept_code.same_content(select(folder)[0], found) == []
    (folder / "train.py").write_text("other")
    assert kept_code.same_content(select(folder)[0], found) == ["train.py"]

    wanted = draw.choice(sorted(kept))
    told = kept_code.prune({wanted}, dry_run=True, spared=-1)
    assert set(told.digests) == set(kept) - {wanted} and kept_code.find(name) is not None
    assert kept_code.prune({wanted}, dry_run=False).digests == ()  # each may be for a run that is about to start
    before = taken()
    kept_code.prune({wanted}, dry_run=False, spared=-1)
    assert before - taken() == told.bytes
    assert [path.name for path in places.kept_code().iterdir() if path.is_dir()] == [wanted]
    again = kept_code.find(wanted)
    assert again is not None and contents(again) == kept[wanted]


def test_equal_files_take_space_once_and_none_is_the_users_own(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    write(folder, {"train.py": "1", "large.bin": "x" * 100_000})
    first, one = select(folder)
    kept_code.keep(first, one)
    write(folder, {"train.py": "22"})
    second, two = select(folder)
    kept_code.keep(second, two)
    inodes = {(places.kept_code() / each / "tree" / "large.bin").stat().st_ino for each in (one, two)}
    assert len(inodes) == 1 and (folder / "large.bin").stat().st_ino not in inodes


def test_nobody_else_may_read_a_copy_and_no_secret_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    write(folder, {"train.py": "1", ".env": "A=1", "notes.txt": HUB_TOKEN, "ignored.py": "x"})
    selection, name = select(folder, code={"exclude": ["ignored.py"]})
    kept_code.keep(selection, name)
    assert [path.name for path in (places.kept_code() / name / "tree").iterdir()] == ["train.py"]
    for path in (places.kept_code(), places.kept_code() / name):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for included in (".env", "notes.txt"):  # sent because the user says so; not kept
        selection, name = select(folder, code={"include": [included]})
        with pytest.raises(kept_code.NotKept, match="looks like credentials"):
            kept_code.keep(selection, name)
        assert kept_code.find(name) is None
    assert HUB_TOKEN not in "".join(p.read_text() for p in places.kept_code().rglob("*") if p.is_file())


def test_a_file_that_changes_while_it_is_copied_leaves_no_copy_under_that_name(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    write(folder, {"a.py": "1", "b.py": "2"})
    selection, name = select(folder)
    write(folder, {"b.py": "333"})
    with pytest.raises(kept_code.NotKept, match=r"b\.py was changed"):
        kept_code.keep(selection, name)
    assert kept_code.find(name) is None and not [each for each in places.kept_code().iterdir() if each.is_dir()]


def test_a_copy_that_was_damaged_is_none(tmp_path: Path) -> None:
    write(tmp_path / "code", {"a.py": "1"})
    selection, name = select(tmp_path / "code")
    kept_code.keep(selection, name)
    (places.kept_code() / name / "tree" / "a.py").write_text("22")
    assert kept_code.find(name) is None and kept_code.find("../..") is None
