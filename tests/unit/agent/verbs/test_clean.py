import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_payload.agent.box import locks, snapshot
from remote_payload.agent.run import slot
from remote_payload.agent.verbs import clean, seal
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request

OLD, NEW, GOING = (f"legal-2026010{day}-142030-7f3{day}" for day in (1, 2, 3))


@pytest.fixture
def box(tmp_path, monkeypatch):
    """Everything on this box is older than an hour, unless a test says otherwise."""
    monkeypatch.setattr(clean, "YOUNG", -1.0)
    return BoxPaths(str(tmp_path / "root"))


def write(path, content="x"):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)


def make_run(box, run_id, *, over=True, outputs=(), data=None, env=None, payload=None, log=""):
    run = box.run(run_id)
    os.makedirs(run.code)
    write(run.log, log)
    for name in outputs:
        write(os.path.join(run.outputs, name))
    if data:
        os.makedirs(os.path.join(run.code, "texts"))
        os.symlink(box.data(data), os.path.join(run.code, "texts", "batches"))
    variables = {
        "PATH": f"{box.env(env)}/bin:/usr/bin" if env else "",
        "PYTHONPATH": box.payload(payload) if payload else "",
    }
    write(run.launch, json.dumps({"argv": ["python"], "environment": variables}))
    slot.allocate(run)
    if over:
        slot.write(run, ExitRecord("exit", 0, 1.0))
    return run


def make_data(box, key):
    pushed = key + "/1700000000-0a1b2c3d"
    write(box.incoming(pushed) + "/a.jsonl")
    marks = snapshot.fingerprint(box.incoming(pushed))
    seal.seal(Request({"incoming": pushed, "key": key, "digest": "d", "marks": marks}, box))


def ask(box, **args):
    answer = clean.clean(Request({"dry_run": False, **args}, box))
    return {item["path"] for item in answer["removed"]}, {item["path"]: item["why"] for item in answer["kept"]}


def test_a_dry_run_is_what_is_assumed_and_deletes_nothing(box):
    run = make_run(box, OLD)
    answer = clean.clean(Request({}, box))
    assert [item["path"] for item in answer["removed"]] == ["runs/" + OLD]
    assert answer["removed"][0]["bytes"] >= 4096
    assert os.path.isdir(run.folder)


def test_outputs_that_may_not_be_home_stay_until_the_run_is_named_or_fetched(box):
    for run_id in (OLD, NEW):
        make_run(box, run_id, outputs=["model.bin"])
    removed, kept = ask(box)
    assert removed == set() and "may not be home" in kept["runs/" + OLD]
    assert ask(box, run_ids=[OLD])[0] == {"runs/" + OLD}
    assert ask(box, fetched=[NEW])[0] == {"runs/" + NEW}
    assert os.listdir(box.runs) == []


def test_a_log_that_may_not_be_home_stays_too_it_says_why_a_run_failed(box):
    make_run(box, OLD, log="Traceback\n")
    removed, kept = ask(box)
    assert removed == set() and "log may not be home" in kept["runs/" + OLD]
    assert ask(box, fetched=[OLD])[0] == {"runs/" + OLD}


def test_a_run_that_is_going_stays_even_when_it_is_named_and_so_does_what_it_uses(box):
    make_data(box, "texts-1")
    os.makedirs(box.env("py-1") + "/bin")
    os.makedirs(box.payload("a" * 64))
    write(os.path.join(box.root, "cache", "hf", "model"))
    make_run(box, GOING, over=False, data="texts-1", env="py-1", payload="a" * 64)
    lock = locks.take_run(box.run(GOING))
    try:
        removed, kept = ask(box, run_ids=[GOING], fetched=[GOING], everything=True)
    finally:
        locks.drop(locks.run_lock(box.run(GOING)), lock)
    assert removed == set()
    assert set(kept) == {f"runs/{GOING}", "data/texts-1", "envs/py-1", "payload/" + "a" * 64, "cache/hf"}
    assert kept["runs/" + GOING] == "it is not over"


def test_what_a_run_that_stays_refers_to_stays_and_the_rest_goes(box):
    for key in ("texts-1", "texts-2"):
        make_data(box, key)
    for key in ("py-1", "py-12"):
        os.makedirs(box.env(key) + "/bin")
    for letter in "ab":
        os.makedirs(box.payload(letter * 64))
    make_run(box, OLD, outputs=["model.bin"], data="texts-1", env="py-12", payload="a" * 64)
    removed, kept = ask(box)
    assert removed == {"data/texts-2", "envs/py-1", "payload/" + "b" * 64}
    assert kept["data/texts-1"] == "a run uses it"
    assert seal.has_data(box, "texts-1", "d") and not os.path.exists(box.data("texts-2"))
    assert sorted(os.listdir(os.path.join(box.root, "data"))) == [".texts-1.json", "texts-1"]


def test_everything_takes_what_a_later_run_could_use_again(box):
    make_data(box, "texts-1")
    for name in ("uv", "pip", "hf"):
        write(os.path.join(box.root, "cache", name, "file"))
    make_run(box, OLD, outputs=["model.bin"], data="texts-1")
    removed, kept = ask(box, everything=True)
    assert removed == {"data/texts-1", "cache/uv", "cache/pip", "cache/hf"}
    assert list(kept) == ["runs/" + OLD]


def test_leftovers_go_and_what_is_new_stays(box, monkeypatch):
    for place in (
        "incoming/x/code",
        "envs/py-1.partial-17",
        "payload/aa.partial-x",
        "runs/.removed-" + OLD,
        "tools/uv.partial-1",
    ):
        write(os.path.join(box.root, place, "file"))
    monkeypatch.setattr(clean, "YOUNG", 3600.0)
    removed, kept = ask(box)
    assert removed == {"runs/.removed-" + OLD}
    assert set(kept) == {"incoming/x", "envs/py-1.partial-17", "payload/aa.partial-x", "tools/uv.partial-1"}
    monkeypatch.setattr(clean, "YOUNG", -1.0)
    assert ask(box)[0] == set(kept)
    assert os.listdir(box.incoming("")) == os.listdir(os.path.join(box.root, "envs")) == []


def test_an_agent_that_a_process_was_started_from_stays(box):
    for letter in "ab":
        write(box.agent(letter * 64), "")
    keeps = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", box.agent("a" * 64)], stdin=subprocess.PIPE
    )
    try:
        removed, kept = ask(box)
    finally:
        keeps.communicate(timeout=20)
    assert removed == {f"agent/{'b' * 64}.pyz"} and list(kept) == [f"agent/{'a' * 64}.pyz"]


def test_a_run_with_processes_left_stays(box):
    make_run(box, OLD)
    left = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "GPURUN_RUN_ID": OLD},
    )  # fmt: skip
    try:
        left.stdout.readline()
        assert "gpurun stop" in ask(box, run_ids=[OLD])[1]["runs/" + OLD]
    finally:
        left.communicate(timeout=20)
    assert ask(box, run_ids=[OLD])[0] == {"runs/" + OLD}


def test_links_are_removed_and_never_followed(box, tmp_path):
    write(tmp_path / "precious" / "file")
    run = make_run(box, OLD)
    os.symlink(tmp_path / "precious", os.path.join(run.code, "link"))
    os.makedirs(os.path.join(box.root, "data"))
    os.symlink(tmp_path / "precious", box.data("texts-1"))
    assert ask(box)[0] == {"runs/" + OLD, "data/texts-1"}
    assert (tmp_path / "precious" / "file").exists() and not os.path.lexists(box.data("texts-1"))


def test_what_cannot_be_deleted_is_said(box, monkeypatch):
    make_run(box, OLD)

    def refuse(path, ignore_errors=False):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(clean.shutil, "rmtree", refuse)
    removed, kept = ask(box)
    assert removed == set() and kept["runs/" + OLD] == "it could not be deleted: Operation not permitted"


@pytest.mark.parametrize("bad", [["../x"], "x", [3], 7])
def test_only_run_ids_can_be_named(box, bad):
    make_run(box, OLD, outputs=["m"])
    with pytest.raises(AgentError) as failure:
        ask(box, run_ids=bad)
    assert failure.value.kind == "UnknownRun" and os.path.isdir(box.run(OLD).folder)
