"""remote_payload/agent/verbs/holdings.py: all that would go with the box. Verdicts over random boxes:
tests/faults/generated/test_proofs.py."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from remote_payload.agent.verbs.holdings import holdings
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request
from runner.domain.answers.holdings import Holdings

RUN, OTHER = "legal-20260101-142030-7f31", "legal-20260102-142030-7f32"


@contextmanager
def process(run_id, folder):
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={"GPURUN_RUN_ID": run_id, "GPURUN_RUN_DIR": str(folder)},
    )  # fmt: skip
    try:
        child.stdout.readline()
        yield child.pid
    finally:
        child.communicate(timeout=20)


def ask(root, **args):
    return holdings(Request(args, BoxPaths(str(root))))


def runs(answer, below):
    return {held["status"]["run_id"]: held for held in answer["runs"] if held["root"].startswith(str(below))}


def test_runs_below_every_root_that_is_remembered_or_that_a_living_run_names_are_found(tmp_path):
    for place, run_id in (("home", RUN), ("volume", OTHER)):
        os.makedirs(tmp_path / place / ".gpurun-box" / "runs" / run_id)
    root, other = tmp_path / "home" / ".gpurun-box", tmp_path / "volume" / ".gpurun-box"
    assert set(runs(ask(root), tmp_path)) == {RUN}
    assert set(runs(ask(root, roots=[str(other), "not/absolute", "/un usable"]), tmp_path)) == {RUN, OTHER}
    with process(OTHER, other / "runs" / OTHER) as pid:
        held = runs(ask(root), tmp_path)[OTHER]
    assert held["status"]["phase"] == "running" and [each["pid"] for each in held["left"]] == [pid]


def test_a_run_without_a_folder_is_told_by_its_processes(tmp_path):
    root = tmp_path / ".gpurun-box"
    with process(RUN, root / "runs" / RUN):
        assert RUN in {each["run_id"] for each in ask(root)["homeless"]}


def test_an_embedded_box_on_the_same_machine_is_another_box(tmp_path):
    embedded = tmp_path / "local-box" / "home" / ".gpurun-box"
    with process(RUN, embedded / "runs" / RUN):
        assert RUN not in {each["run_id"] for each in ask(tmp_path / ".gpurun-box")["homeless"]}
        assert {each["run_id"] for each in ask(embedded)["homeless"]} == {RUN}
    with process(OTHER, tmp_path / ".gpurun-box" / "runs" / OTHER):
        assert ask(embedded)["homeless"] == []


def test_pushes_that_no_run_took_are_told_and_empty_folders_are_nothing(tmp_path):
    paths = BoxPaths(str(tmp_path / ".gpurun-box"))
    os.makedirs(paths.incoming(RUN + "/code"))
    assert ask(paths.root)["pushes"] == []
    for name in (RUN + "/code", "texts-1", OTHER + "/code"):
        os.makedirs(paths.incoming(name), exist_ok=True)
        (tmp_path / ".gpurun-box" / "incoming" / name / "file").write_text("x")
    os.makedirs(paths.run(OTHER).folder)  # it started: what lies there still is not a push of its own
    assert [(each["name"], each["run_id"]) for each in ask(paths.root)["pushes"]] == [(RUN, RUN), ("texts-1", None)]


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"runs": 3, "pushes": [], "homeless": []}, {"runs": [3], "pushes": [], "homeless": []},
        {"runs": [{"root": "/", "left": [], "status": {"run_id": "../x", "phase": "running"}}], "pushes": [], "homeless": []},
        {"runs": [{"root": "/", "left": [], "status": {"run_id": RUN, "phase": "asleep"}}], "pushes": [], "homeless": []},
        {"runs": [{"root": "/", "status": {"run_id": RUN, "phase": "running"}}], "pushes": [], "homeless": []},
        {"runs": [], "pushes": [{"root": "/", "name": 3}], "homeless": []},
        {"runs": [], "pushes": [], "homeless": [{"run_id": "x", "left": []}]},
        {"runs": [], "pushes": [], "homeless": [], "unread": [{"root": "x", "why": "y"}]},
        {"runs": [], "pushes": [], "homeless": [], "unread": None},
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_proves_nothing(answer):
    with pytest.raises(ValueError):
        Holdings.parse({"unread": [], **answer})


def test_a_root_that_cannot_be_listed_is_told(tmp_path):
    root, gone = tmp_path / ".gpurun-box", str(tmp_path / "not-mounted" / ".gpurun-box")
    os.makedirs(root)
    answer = ask(root, roots=[gone])
    assert {"root": gone, "why": "No such file or directory"} in answer["unread"]
    assert str(root) not in {each["root"] for each in answer["unread"]}
    assert Holdings.parse(answer).unread[gone] == "No such file or directory"
