import errno
import os
from pathlib import Path

import pytest

from remote_payload.agent import snapshot
from remote_payload.agent.files import read_json
from remote_payload.agent.paths import BoxPaths

HOSTILE = ["a b", "semi;echo", "-rf", "new\nline", "esc\x1b]52;c;x\x07", "\udcff\udcfe", "$(touch x)", "ünïcode"]


@pytest.fixture
def box(tmp_path):
    return BoxPaths(str(tmp_path / "root"))


def write(folder, files):
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def pushed_run(box, run_id, files, digest):
    run = box.run(run_id)
    write(run.code, files)
    snapshot.record_code(run, digest)
    return run


def test_link_tree_shares_inodes_and_recreates_links_under_hostile_names(tmp_path):
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    write(source, {os.path.join("deep", name): name.encode("utf-8", "replace").decode() for name in HOSTILE})
    os.symlink("/etc/passwd", os.path.join(source, "link"))
    os.mkfifo(os.path.join(source, "pipe"))
    snapshot.link_tree(source, target)
    for name in HOSTILE:
        assert os.path.samefile(os.path.join(source, "deep", name), os.path.join(target, "deep", name))
    assert os.readlink(os.path.join(target, "link")) == "/etc/passwd"
    assert sorted(os.listdir(target)) == ["deep", "link"]
    assert os.listdir(str(tmp_path)) != [] and not [n for n in os.listdir(str(tmp_path)) if "partial" in n]


def test_link_tree_gives_append_only_logs_content_of_their_own(tmp_path):
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    write(source, {"logs/train.jsonl": "{}\n", "models/w.bin": "weights"})
    snapshot.link_tree(source, target, copy=(".jsonl",))
    with open(os.path.join(target, "logs/train.jsonl"), "a") as log:
        log.write("more\n")
    assert Path(source, "logs/train.jsonl").read_text() == "{}\n"
    assert os.path.samefile(os.path.join(source, "models/w.bin"), os.path.join(target, "models/w.bin"))


def test_link_tree_copies_where_the_filesystem_has_no_hard_links(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write(str(tmp_path / "source"), {"a.py": "print()"})
    snapshot.link_tree(str(tmp_path / "source"), str(tmp_path / "target"))
    assert (tmp_path / "target" / "a.py").read_text() == "print()"
    assert (tmp_path / "target" / "a.py").stat().st_nlink == 1


def test_link_tree_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    write(str(tmp_path / "source"), {"a.py": ""})
    with pytest.raises(OSError, match="No space"):
        snapshot.link_tree(str(tmp_path / "source"), str(tmp_path / "target"))
    assert os.listdir(tmp_path) == ["source"]


def test_link_tree_never_writes_over_what_is_there(tmp_path):
    write(str(tmp_path / "source"), {"a.py": ""})
    (tmp_path / "target").mkdir()
    with pytest.raises(FileExistsError):
        snapshot.link_tree(str(tmp_path / "source"), str(tmp_path / "target"))


@pytest.mark.parametrize("change", ["content", "new", "removed", "link"])
def test_stat_digest_notices_a_tree_changed_on_the_box(tmp_path, change):
    tree = str(tmp_path / "tree")
    write(tree, {"a": "1", "b/c": "2"})
    os.symlink("a", os.path.join(tree, "l"))
    before = snapshot.stat_digest(tree)
    assert snapshot.stat_digest(tree) == before
    if change == "content":
        write(tree, {"a": "3"})
        os.utime(os.path.join(tree, "a"), ns=(1, 1))
    elif change == "new":
        write(tree, {"b/d": ""})
    elif change == "removed":
        os.unlink(os.path.join(tree, "b/c"))
    else:
        os.unlink(os.path.join(tree, "l"))
        os.symlink("b/c", os.path.join(tree, "l"))
    assert snapshot.stat_digest(tree) != before


def test_code_is_found_by_digest_and_linked_without_what_the_payload_added(box):
    old = pushed_run(box, "legal-20260102-142030-7f3a", {"train.py": "x", "pkg/__init__.py": ""}, "d1")
    write(old.code, {"__pycache__/train.pyc": "junk"})
    os.symlink("/data", os.path.join(old.code, "data"))
    assert snapshot.find_code(box, "d1") == old.run_id
    assert snapshot.find_code(box, "d2") is None
    new = box.run("legal-20260103-142030-7f3b")
    os.makedirs(new.folder)
    snapshot.link_code(old, new.code)
    assert sorted(snapshot.describe(new.code)) == ["pkg/__init__.py", "train.py"]
    snapshot.record_code(new, "d1")
    assert snapshot.find_code(box, "d1") == new.run_id


def test_code_that_the_payload_changed_is_not_taken_over(box):
    run = pushed_run(box, "legal-20260102-142030-7f3a", {"train.py": "x"}, "d1")
    os.utime(os.path.join(run.code, "train.py"), ns=(5, 5))
    assert snapshot.find_code(box, "d1") is None
    with pytest.raises(OSError, match="changed on the box"):
        snapshot.link_code(run, os.path.join(box.root, "new"))


def test_link_dest_is_the_newest_run_of_the_same_job_then_of_any(box):
    assert snapshot.latest_code(box, "legal") is None
    first = pushed_run(box, "legal-20260102-142030-7f3a", {"a": ""}, "1")
    second = pushed_run(box, "legal-20260103-000000-0000", {"a": ""}, "2")
    other = pushed_run(box, "brie-20260401-000000-0000", {"a": ""}, "3")
    os.makedirs(os.path.join(box.runs, "not a run"))
    assert snapshot.latest_code(box, "legal") == second.code != first.code
    assert snapshot.latest_code(box, "unknown") == other.code


def test_a_torn_snapshot_record_is_no_snapshot(box):
    run = pushed_run(box, "legal-20260102-142030-7f3a", {"train.py": "x"}, "d1")
    raw = Path(run.snapshot).read_bytes()
    for length in range(0, len(raw)):
        Path(run.snapshot).write_bytes(raw[:length])
        assert read_json(run.snapshot) is None
        assert snapshot.find_code(box, "d1") is None
