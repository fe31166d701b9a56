"""What changed since the last run, as the laptop packs it and the agent puts it in place: real trees, no network."""

import os
import time
from pathlib import Path

import pytest

from remote_payload.agent.box import snapshot
from remote_payload.agent.verbs import patch as agent
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request
from runner.domain.answers.box import EarlierCode
from runner.jobfile.load import load
from runner.push import patch as laptop
from runner.push.selection import select_code

FIRST, SECOND = "code-20260102-142030-9a7c", "code-20260102-142031-9a7d"
ATTEMPT = SECOND + "/1700000000-0a1b2c3d"


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "package").mkdir(parents=True)
    (folder / "job.yaml").write_text('{"name": "code", "command": ["true"]}')
    for name in ("train.py", "package/a.py", "package/b.py", "run.sh"):
        (folder / name).write_text(f"# {name}\n")
    os.symlink("train.py", folder / "alias")
    return folder


@pytest.fixture
def box(tmp_path, project):
    """A box with a run that was pushed this project."""
    paths = BoxPaths(str(tmp_path / "root"))
    run = paths.run(FIRST)
    os.makedirs(run.code + "/package")
    for entry in select(project).files:
        if entry.kind == "link":
            os.symlink(entry.target, os.path.join(run.code, entry.path))
            continue
        place = os.path.join(run.code, entry.path)
        Path(place).write_bytes((project / entry.path).read_bytes())
        os.chmod(place, entry.mode)
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))
    snapshot.record_code(run, "d1")
    return paths


def select(project):
    return select_code(load(str(project / "job.yaml")))


def earlier_code(box):
    """What the agent offers, as the laptop reads it."""
    offered = agent.offer(box, "code")
    return EarlierCode(**offered) if offered else None


def push(box, project, made=None):
    """What arrives; ``made`` is a patch that was made before."""
    made = made or laptop.make_patch(select(project), earlier_code(box))
    os.makedirs(box.incoming(SECOND), exist_ok=True)
    request = Request({**made.args, "incoming": ATTEMPT}, box)
    request.offer_blob(made.data)
    request.offer_blob(b"")
    agent.patch(request)
    return made, Path(box.incoming(ATTEMPT))


def as_it_is(tree):
    """Path → what it holds, may and when it was written."""
    told = {}
    for path in sorted(Path(tree).rglob("*")):
        about = path.lstat()
        if path.is_symlink():
            told[str(path.relative_to(tree))] = os.readlink(path)
        elif path.is_file():
            told[str(path.relative_to(tree))] = (path.read_bytes(), about.st_mode, about.st_mtime_ns)
    return told


def test_every_kind_of_change_arrives_and_what_is_equal_is_linked(box, project):
    (project / "train.py").write_text("# changed\n")
    (project / "run.sh").chmod(0o755)
    (project / "package" / "a.py").unlink()
    (project / "new folder").mkdir()
    (project / "new folder" / os.fsdecode(b"caf\xe9")).write_text("new\n")
    (project / "alias").unlink()
    os.symlink("package/b.py", project / "alias")
    made, arrived = push(box, project)
    assert as_it_is(arrived) == as_it_is(project)
    assert os.path.samefile(arrived / "package/b.py", box.run(FIRST).code + "/package/b.py")
    assert made.files == 4, "train.py, run.sh, the new file, the link"
    assert Path(box.run(FIRST).code, "train.py").read_text() == "# train.py\n", "the earlier run keeps its own"


def test_only_a_removal_needs_no_bytes(box, project):
    (project / "package" / "a.py").unlink()
    made, arrived = push(box, project)
    assert made.files == 0 and as_it_is(arrived) == as_it_is(project)


def test_what_the_earlier_run_changed_or_removed_is_sent_again(box, project):
    Path(box.run(FIRST).code, "train.py").write_text("# written by the payload\n")
    os.unlink(box.run(FIRST).code + "/run.sh")
    made, arrived = push(box, project)
    assert made.files == 2 and as_it_is(arrived) == as_it_is(project)


def test_a_change_between_the_offer_and_the_patch_is_noticed(box, project):
    (project / "run.sh").write_text("# changed\n")
    made = laptop.make_patch(select(project), earlier_code(box))
    Path(box.run(FIRST).code, "train.py").write_text("# written meanwhile\n")
    with pytest.raises(AgentError, match="files it begins with were changed") as raised:
        push(box, project, made)
    assert raised.value.kind == "TransferInterrupted" and os.listdir(box.incoming(SECOND)) == []


def test_what_was_edited_during_a_push_is_patched_into_what_it_brought(box, project):
    before = select(project)
    _, first = push(box, project)
    (project / "run.sh").write_text("# changed\n")
    (project / "package" / "a.py").unlink()
    (project / "new.py").write_text("new\n")
    later = SECOND + "/1700000001-0a1b2c3d"
    made = laptop.patch_attempt(ATTEMPT, before, select(project))
    request = Request({**made.args, "incoming": later}, box)
    request.offer_blob(made.data)
    request.offer_blob(b"")
    agent.patch(request)
    assert made.files == 2 and as_it_is(box.incoming(later)) == as_it_is(project)
    assert first.joinpath("run.sh").read_text() == "# run.sh\n", "what the first attempt brought stays as it was"


def test_a_file_whose_time_proves_nothing_is_sent(box, project):
    code = Path(box.run(FIRST).code)
    for path in code.rglob("*.*"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns // 10**9 * 10**9))
    snapshot.record_code(box.run(FIRST), "d1", read_at=int(time.time()))  # the files were edited within these seconds
    made, arrived = push(box, project)
    assert made.files == 5 and as_it_is(arrived) == as_it_is(project)


@pytest.mark.parametrize("offered", [None, EarlierCode(FIRST, "", None), EarlierCode(FIRST, "YQ", 5)])
def test_a_box_that_offers_nothing_of_use_is_sent_everything(project, offered):
    assert laptop.make_patch(select(project), offered) is None


def test_much_is_left_to_rsync(box, project, monkeypatch):
    (project / "train.py").write_text("x" * (agent.MAX_BYTES + 1))
    assert laptop.make_patch(select(project), earlier_code(box)) is None
    (project / "train.py").write_text("small\n")
    monkeypatch.setattr(laptop, "MAX_FILES", 0)
    assert laptop.make_patch(select(project), earlier_code(box)) is None
    monkeypatch.setattr(agent, "MAX_OFFERED", 2)
    assert agent.offer(box, "code") is None


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x"])
def test_a_path_that_leads_out_is_refused(box, project, path):
    made = laptop.make_patch(select(project), earlier_code(box))
    made.args["files"].append({"path": path, "target": "x"})
    with pytest.raises(AgentError, match="leads out"):
        push(box, project, made)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"x" + data, lambda data: b""])
def test_damaged_bytes_change_nothing(box, project, change):
    (project / "train.py").write_text("# changed\n")
    made = laptop.make_patch(select(project), earlier_code(box))
    damaged = laptop.Patch(made.args, change(made.data), made.total_bytes)
    with pytest.raises(AgentError) as raised:
        push(box, project, damaged)
    assert raised.value.kind == "TransferInterrupted" and not os.path.exists(box.incoming(ATTEMPT))


def test_a_box_that_keeps_whole_seconds_is_not_sent_everything_again(box, project):
    code = Path(box.run(FIRST).code)
    for path in code.rglob("*.*"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns // 10**9 * 10**9))
    snapshot.record_code(box.run(FIRST), "d1")
    (project / "run.sh").write_text("# changed\n")
    made, arrived = push(box, project)
    assert made.files == 1 and (arrived / "run.sh").read_text() == "# changed\n"
