import hashlib
import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from remote_payload.agent.box import locks
from remote_payload.agent.run import manifest, slot
from remote_payload.agent.verbs.manifest import manifest as verb
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request
from remote_payload.train import folders
from runner.domain.answers.manifest import parse_manifest

RUN_ID = "legal-20260102-142030-3a41"
LONG_AGO = 1_700_000_000


@pytest.fixture
def run(tmp_path):
    run = BoxPaths(str(tmp_path / "root")).run(RUN_ID)
    os.makedirs(run.outputs)
    return run


def write(run, path, content=b"x", age=LONG_AGO):
    target = Path(run.outputs, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    os.utime(target, (age, age))
    return target


def complete_folder(run, folder, files):
    for name, content in files.items():
        write(run, f"{folder}/{name}", content)
    listed = [{"path": n, "size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()]
    write(run, f"{folder}/manifest.json", json.dumps({"files": listed}).encode())


def paths(built):
    return [file["path"] for file in built["files"]]


def test_a_finished_run_lists_every_regular_file_with_its_true_sha256(run):
    write(run, "models/best/w.safetensors", b"weights" * 1000)
    write(run, "report.txt", b"")
    built = manifest.write(run)
    assert paths(built) == ["models/best/w.safetensors", "report.txt"]
    for file in built["files"]:
        content = Path(run.outputs, file["path"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert file["mtime"] == LONG_AGO
    assert json.loads(Path(run.manifest).read_text()) == built
    assert built["complete"] is True


def test_while_it_trains_only_complete_folders_and_logs_are_listed(run):
    complete_folder(run, "checkpoints/step-000500", {"model.safetensors": b"w", "nested/rng.json": b"{}"})
    write(run, "checkpoints/step-001000/model.safetensors", b"half")
    write(run, "logs/r/events.out.tfevents.1.box.2.0", b"tb")
    write(run, "notes.jsonl", b"{}\n")
    write(run, "training_metadata.json", b"{}")
    built = manifest.build(run, complete=False)
    assert paths(built) == [
        "checkpoints/step-000500/manifest.json",
        "checkpoints/step-000500/model.safetensors",
        "checkpoints/step-000500/nested/rng.json",
        "logs/r/events.out.tfevents.1.box.2.0",
        "notes.jsonl",
    ]
    assert built["folders"] == ["checkpoints/step-000500"]
    assert built["complete"] is False


@pytest.mark.parametrize("damage", ["missing", "shorter", "torn manifest", "manifest lies about names"])
def test_a_folder_that_is_not_what_its_manifest_says_is_not_complete(run, damage):
    complete_folder(run, "best", {"w.bin": b"12345"})
    if damage == "missing":
        os.unlink(os.path.join(run.outputs, "best/w.bin"))
    elif damage == "shorter":
        write(run, "best/w.bin", b"123")
    elif damage == "torn manifest":
        write(run, "best/manifest.json", b'{"files": [')
    else:
        write(run, "best/manifest.json", b'{"files": [{"path": "../../x", "size": 1}, 7]}')
    built = manifest.build(run, complete=False)
    assert built["folders"] == [] and built["files"] == []


def made_by_the_payload(run):
    """A folder as the training package writes it, but for a sha256 that shows whether the file was read."""
    with folders.complete_folder(
        Path(run.outputs, "checkpoints/step-000500"), hashed={"model.safetensors": "ab" * 32}
    ) as folder:
        (folder / "model.safetensors").write_bytes(b"weights")
    return Path(run.outputs, "checkpoints/step-000500/model.safetensors")


def sha256_listed(run, path="checkpoints/step-000500/model.safetensors"):
    (found,) = (file["sha256"] for file in manifest.build(run)["files"] if file["path"] == path)
    return found


def test_what_the_payload_hashed_as_it_wrote_is_not_read_again(run):
    made_by_the_payload(run)
    assert sha256_listed(run) == "ab" * 32


@pytest.mark.parametrize("change", ["written", "written and dated back", "replaced", "another size", "copied"])
def test_a_file_that_changed_since_the_payload_hashed_it_is_read(run, change):
    file = made_by_the_payload(run)
    before = file.stat()
    content = b"changed" if change != "another size" else b"longer than it was"
    time.sleep(0.02)  # more than a tick of the file system's clock, as between any save and what comes later
    if change == "replaced":
        other = file.with_name("other")
        other.write_bytes(content)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.rename(file)
    elif change == "copied":
        content = b"weights"
        shutil.copytree(file.parent, file.parent.with_name("step-000600"))
        shutil.rmtree(file.parent)
        file.parent.with_name("step-000600").rename(file.parent)
    else:
        file.write_bytes(content)
        if change == "written and dated back":
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_listed(run) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("odd", [{"sha256": "AB"}, {"sha256": 7}, {"mtime_ns": "now"}, {"mtime_ns": None}])
def test_what_is_odd_in_a_folders_own_manifest_is_not_taken_over(run, odd):
    listed = Path(made_by_the_payload(run)).with_name("manifest.json")
    told = json.loads(listed.read_text())
    told["files"][0].update(odd)
    listed.write_text(json.dumps(told))
    assert sha256_listed(run) == hashlib.sha256(b"weights").hexdigest()


def test_links_devices_unfinished_and_odd_names_are_never_listed_and_said(run):
    write(run, "good.txt")
    os.symlink("/etc/passwd", os.path.join(run.outputs, "link"))
    os.symlink("/etc", os.path.join(run.outputs, "folder-link"))
    os.mkfifo(os.path.join(run.outputs, "pipe"))
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(run.outputs)  # a socket's path may have 107 bytes only
        server.bind("socket")
        os.chdir(here)
    for name in (
        "new\nline",
        "esc\x1b]0;x\x07",
        "c1\x9b",
        "bidi\u202e",
        "back\\slash",
        "w.bin.tmp",
        "w.tmp-17",
        ".old-best",
    ):
        write(run, name)
    write(run, "step-1.partial/manifest.json", b"{}")
    Path(os.fsdecode(os.path.join(os.fsencode(run.outputs), b"\xff\xfe"))).write_bytes(b"")
    built = manifest.build(run)
    assert paths(built) == ["good.txt"]
    assert len(built["left_out"]) == 14
    assert all(item["path"].isprintable() and item["path"].isascii() for item in built["left_out"])


def test_what_the_laptop_would_refuse_the_whole_list_for_is_left_out(run):
    for name in (
        "-rf",
        ".git/config",
        "a/.ssh/id",
        "Models/w",
        "models/w",
        "models/x",
        "é",
        "e\u0301",
        "d/" * 250 + "f",
    ):
        write(run, name)
    write(run, "/".join(["n" * 200] * 6))
    built = manifest.build(run)
    listed = parse_manifest(built)
    assert sorted(file.path for file in listed.files) == sorted(["Models/w", "d/" * 250 + "f", "e\u0301"])
    assert len(built["left_out"]) == 7


def ask(run, **args):
    request = Request({"run_id": RUN_ID, **args}, BoxPaths(os.path.dirname(os.path.dirname(run.folder))))
    told = []
    request.progress = told.append
    return verb(request), told


def test_the_verb_gives_what_the_supervisor_wrote(run):
    write(run, "w.bin", b"12345")
    written = manifest.write(run)
    assert ask(run) == (written, [])


def test_the_verb_builds_the_manifest_of_a_run_whose_supervisor_died_and_tells_how_far_it_is(run):
    write(run, "w.bin", b"12345")
    slot.allocate(run)
    slot.write(run, ExitRecord("exit", 0, 1.0))
    built, told = ask(run)
    assert built["complete"] and paths(built) == ["w.bin"] and told == [{"done": 5, "total": 5}]


def test_the_verb_waits_for_the_supervisor_that_is_writing_it(run):
    write(run, "w.bin", b"12345")
    slot.allocate(run)
    slot.write(run, ExitRecord("exit", 0, 1.0))
    lock = locks.take_run(run)
    try:
        threading.Timer(0.3, manifest.write, [run]).start()
        assert ask(run)[1] == []
    finally:
        locks.drop(locks.run_lock(run), lock)


def test_the_verb_names_only_what_is_whole_while_the_run_goes_on(run):
    write(run, "model.bin", b"half")
    write(run, "train.log", b"line\n")
    slot.allocate(run)
    lock = locks.take_run(run)
    try:
        built, _ = ask(run)
    finally:
        locks.drop(locks.run_lock(run), lock)
    assert not built["complete"] and paths(built) == ["train.log"]


def test_a_run_that_is_gone_from_the_box_is_a_named_error(run):
    shutil.rmtree(run.folder)
    with pytest.raises(AgentError, match="no folder") as failure:
        ask(run)
    assert failure.value.kind == "RunLost"


def test_a_replaced_outputs_folder_that_is_a_link_is_not_followed(run):
    os.rmdir(run.outputs)
    os.symlink("/etc", run.outputs)
    assert manifest.build(run)["files"] == []


def test_a_file_is_hashed_once_until_it_changes(run, monkeypatch):
    monkeypatch.setattr(manifest, "SETTLED_NS", 0)
    target = write(run, "w.bin", b"a" * 100)
    first = manifest.build(run)
    with monkeypatch.context() as reading:
        reading.setattr(manifest.hashlib, "sha256", lambda: pytest.fail("it is read again"))
        assert manifest.build(run) == first
    os.utime(target, (LONG_AGO + 1, LONG_AGO + 1))
    with monkeypatch.context() as reading, pytest.raises(pytest.fail.Exception):
        reading.setattr(manifest.hashlib, "sha256", lambda: pytest.fail("it is read again"))
        manifest.build(run)


def test_another_file_with_the_size_time_and_inode_of_the_one_it_replaces_is_read(run, monkeypatch):
    monkeypatch.setattr(manifest, "SETTLED_NS", 0)
    target = write(run, "w.bin", b"a" * 100)
    manifest.build(run)
    number = target.stat().st_ino
    target.write_bytes(b"b" * 100)
    os.utime(target, (LONG_AGO, LONG_AGO))
    assert target.stat().st_ino == number
    assert manifest.build(run)["files"][0]["sha256"] == hashlib.sha256(b"b" * 100).hexdigest()


def test_a_file_written_a_moment_ago_is_read_again(run):
    target = Path(run.outputs, "w.bin")
    target.write_bytes(b"a" * 100)
    stamp = target.stat().st_mtime_ns
    manifest.build(run)
    target.write_bytes(b"b" * 100)
    os.utime(target, ns=(stamp, stamp))
    assert manifest.build(run)["files"][0]["sha256"] == hashlib.sha256(b"b" * 100).hexdigest()


def test_a_log_that_grows_while_it_is_read_is_listed_as_it_was_when_opened(run):
    target = write(run, "train.log", b"a" * (3 << 20))

    def grow(done, total):
        with open(target, "ab") as file:
            file.write(b"b" * 100)

    built = manifest.build(run, complete=False, progress=grow)
    (file,) = built["files"]
    assert file["sha256"] == hashlib.sha256(target.read_bytes()[: file["size"]]).hexdigest()


def test_a_model_that_is_written_to_while_it_is_read_is_left_out_and_said(run):
    target = write(run, "model.bin", b"a" * (2 << 20))

    def grow(done, total):
        with open(target, "ab") as file:
            file.write(b"b")

    built = manifest.build(run, progress=grow)
    assert built["files"] == []
    assert built["left_out"] == [{"path": "model.bin", "why": "changed while it was read"}]


def test_a_file_that_is_swapped_for_a_link_meanwhile_is_not_followed(run):
    write(run, "a.bin", b"1")
    swapped = write(run, "b.bin", b"2")

    def swap(done, total):
        if not swapped.is_symlink():
            swapped.unlink()
            swapped.symlink_to("/etc/passwd")

    assert paths(manifest.build(run, progress=swap)) == ["a.bin"]


def test_an_outputs_folder_that_is_missing_gives_an_empty_manifest(run):
    os.rmdir(run.outputs)
    assert manifest.build(run)["files"] == []


def test_a_torn_hash_cache_costs_only_time(run, monkeypatch):
    monkeypatch.setattr(manifest, "SETTLED_NS", 0)
    write(run, "w.bin", b"a")
    expected = manifest.build(run)
    cache = Path(run.folder, "hashes.json")
    for spoiled in (b"", b"[1]", b'{"w.bin": [1, 2]}', b'{"w.bin": 3}', cache.read_bytes()[:-1]):
        cache.write_bytes(spoiled)
        assert manifest.build(run) == expected


def test_what_was_renamed_or_copied_after_the_end_is_listed_too_and_what_is_gone_stays_listed(run):
    write(run, "models/a.bin")
    write(run, "models/b.bin")
    slot.allocate(run)
    slot.write(run, ExitRecord("exit", 0, 1.0))
    manifest.write(run)
    assert paths(ask(run)[0]) == ["models/a.bin", "models/b.bin"]
    os.rename(os.path.join(run.outputs, "models/a.bin"), os.path.join(run.outputs, "models/by-hand.bin"))
    os.symlink("b.bin", os.path.join(run.outputs, "models/latest"))
    later, _ = ask(run)
    assert paths(later) == ["models/a.bin", "models/b.bin", "models/by-hand.bin"] and later["complete"]
    assert [each["path"] for each in later["left_out"]] == ["models/latest"]


@pytest.mark.parametrize(
    ("named", "listed"),
    [
        (["models", "logs"], ["logs/x.log", "models/best/w"]),
        (["models/best"], ["models/best/w"]),
        (["training_metadata.json"], ["training_metadata.json"]),
        (None, ["checkpoints/step-000001/w", "logs/x.log", "models/best/w", "modelsque/w", "training_metadata.json"]),
    ],
)
def test_of_a_recipes_outputs_what_the_job_names_is_listed_and_the_rest_may_go(run, named, listed):
    for path in ("models/best/w", "modelsque/w", "checkpoints/step-000001/w", "logs/x.log", "training_metadata.json"):
        write(run, path)
    Path(run.job).write_text(json.dumps({"recipe": "classify", "outputs": named}))
    built = manifest.write(run)
    assert paths(built) == listed
    assert all(entry["dispensable"] for entry in built["left_out"])
    assert bool(built["left_out"]) is (named is not None)


def test_a_commands_outputs_are_whatever_it_wrote(run):
    write(run, "results/a")
    Path(run.job).write_text(json.dumps({"recipe": None, "command": ["x"], "outputs": ["models"]}))
    assert paths(manifest.write(run)) == ["results/a"]
