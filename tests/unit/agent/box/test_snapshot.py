import errno
import os
from pathlib import Path

import pytest

from remote_payload.agent.box import snapshot
from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import BoxPaths

HOSTILE = ["a b", "semi;echo", "-rf", "new\nline", "esc\x1b]52;c;x\x07", "\udcff\udcfe", "$(touch x)", "ünïcode"]


@pytest.fixture
def box(tmp_path):
    return BoxPaths(str(tmp_path / "root"))


def write(folder, files):
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def failing_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def pushed_run(box, run_id, files, digest, link=None):
    run = box.run(run_id)
    write(run.code, files)
    if link:
        os.symlink(link, os.path.join(run.code, "link"))
    snapshot.record_code(run, digest)
    return run


def new_run(box):
    run = box.run("legal-20260103-142030-54a1")
    os.makedirs(run.folder)
    return run


def test_linked_code_shares_inodes_and_recreates_links_under_hostile_names(box):
    files = {os.path.join("deep", name): "x" for name in HOSTILE}
    old = pushed_run(box, "legal-20260102-142030-54a0", files, "d1", link="/etc/passwd")
    os.mkfifo(os.path.join(old.code, "pipe"))
    new = new_run(box)
    snapshot.link_code(old, new)
    target = new.code
    for name in HOSTILE:
        assert os.path.samefile(os.path.join(old.code, "deep", name), os.path.join(target, "deep", name))
    assert os.readlink(os.path.join(target, "link")) == "/etc/passwd"
    assert sorted(os.listdir(target)) == ["deep", "link"]


def test_code_is_copied_where_the_filesystem_has_no_hard_links(box, monkeypatch):
    monkeypatch.setattr(os, "link", failing_with(errno.EPERM))
    old = pushed_run(box, "legal-20260102-142030-54a0", {"a.py": "print()"}, "d1")
    new = new_run(box)
    snapshot.link_code(old, new)
    target = Path(new.code)
    assert (target / "a.py").read_text() == "print()" and (target / "a.py").stat().st_nlink == 1


def test_a_link_that_fails_leaves_nothing_behind(box, monkeypatch):
    monkeypatch.setattr(os, "link", failing_with(errno.ENOSPC))
    old = pushed_run(box, "legal-20260102-142030-54a0", {"a.py": ""}, "d1")
    with pytest.raises(OSError, match="No space"):
        snapshot.link_code(old, new_run(box))
    assert os.listdir(box.root) == ["runs"] and os.listdir(box.run("legal-20260103-142030-54a1").folder) == []


def test_code_is_never_linked_over_what_is_there(box):
    old = pushed_run(box, "legal-20260102-142030-54a0", {"a.py": ""}, "d1")
    with pytest.raises(FileExistsError):
        snapshot.link_code(old, old)


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
    old = pushed_run(box, "legal-20260102-142030-54a0", {"train.py": "x", "pkg/__init__.py": ""}, "d1")
    write(old.code, {"__pycache__/train.pyc": "junk"})
    os.symlink("/data", os.path.join(old.code, "data"))
    assert snapshot.find_code(box, "d1") == old.run_id
    assert snapshot.find_code(box, "d2") is None
    new = new_run(box)
    snapshot.link_code(old, new)
    assert sorted(snapshot.describe(new.code)) == ["pkg/__init__.py", "train.py"]
    assert snapshot.find_code(box, "d1") == new.run_id
    os.unlink(os.path.join(old.code, "train.py"))  # each run's record speaks of its own files
    assert snapshot.find_code(box, "d1") == new.run_id


def test_code_that_the_payload_changed_is_not_taken_over(box):
    run = pushed_run(box, "legal-20260102-142030-54a0", {"train.py": "x"}, "d1")
    os.utime(os.path.join(run.code, "train.py"), ns=(5, 5))
    assert snapshot.find_code(box, "d1") is None
    with pytest.raises(OSError, match="changed on the box"):
        snapshot.link_code(run, new_run(box))


def test_link_dest_is_the_newest_run_of_the_same_job_then_of_any(box):
    assert snapshot.latest_code(box, "legal") is None
    first = pushed_run(box, "legal-20260102-142030-54a0", {"a": ""}, "1")
    second = pushed_run(box, "legal-20260103-000000-0000", {"a": ""}, "2")
    other = pushed_run(box, "brie-20260401-000000-0000", {"a": ""}, "3")
    os.makedirs(os.path.join(box.runs, "not a run"))
    assert snapshot.latest_code(box, "legal") == second.code != first.code
    assert snapshot.latest_code(box, "unknown") == other.code


def test_a_torn_snapshot_record_is_no_snapshot(box):
    run = pushed_run(box, "legal-20260102-142030-54a0", {"train.py": "x"}, "d1")
    raw = Path(run.snapshot).read_bytes()
    for length in range(0, len(raw)):
        Path(run.snapshot).write_bytes(raw[:length])
        assert read_json(run.snapshot) is None
        assert snapshot.find_code(box, "d1") is None
