"""What of the outputs of a program of the user's own is complete while it runs: the known forms, the job's rule, every sign of a writer."""

import io
import json
import os
import time
import zipfile
from pathlib import Path

import pytest

from remote_payload.agent.box import locks
from remote_payload.agent.run import manifest, slot
from remote_payload.agent.run.checkpoints import complete
from remote_payload.agent.run.checkpoints.endings import cut_off
from remote_payload.agent.run.checkpoints.forms import find_units, step_in
from remote_payload.agent.run.checkpoints.rule import Rule, read_rule
from remote_payload.agent.verbs.checkpoints import checkpoints as verb
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request

RUN_ID = "own-20260102-142030-3a41"
NOW = Rule(quiet=0.0)


@pytest.fixture
def run(tmp_path):
    run = BoxPaths(str(tmp_path / "root")).run(RUN_ID)
    os.makedirs(run.outputs)
    Path(run.job).write_text(json.dumps({"command": ["x"], "outputs": ["out"]}))
    return run


@pytest.fixture
def running(run):
    """The run goes on; what is written is complete at once, unless another sign is against it."""
    slot.allocate(run)
    lock = locks.take_run(run)
    rule(run, complete_when="0s")
    yield run
    locks.drop(locks.run_lock(run), lock)


def rule(run, **written):
    Path(run.job).write_text(json.dumps({"command": ["x"], "outputs": ["out"], "checkpoints": written}))


def write(run, path, content=b"x"):
    target = Path(run.outputs, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def ask(run):
    return verb(Request({"run_id": RUN_ID}, BoxPaths(os.path.dirname(os.path.dirname(run.folder)))))


def listed(run):
    return [each["path"] for each in ask(run)["checkpoints"]]


def waiting(run):
    return {each["path"]: each["why"] for each in ask(run)["unfinished"]}


def files(run):
    return [each["path"] for each in manifest.build(run, complete=False)["files"]]


def zipped(content=b"weights" * 100):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data.pkl", content)
    return packed.getvalue()


def trainer(run, step, state=True):
    write(run, f"out/checkpoint-{step}/model.safetensors", b"\2\0\0\0\0\0\0\0{}")
    write(run, f"out/checkpoint-{step}/optimizer.pt", zipped())
    log = [
        {"step": step - 1, "loss": 9.0},
        {"step": step, "loss": 2.5},
        {"step": step, "eval_loss": 2.25, "epoch": 1.0},
    ]
    if state:
        told = json.dumps({"global_step": step, "log_history": log}).encode()
        write(run, f"out/checkpoint-{step}/trainer_state.json", told)


def test_a_checkpoint_of_the_trainer_is_complete_with_its_state(running):
    trainer(running, 500)
    trainer(running, 600, state=False)
    (found,) = ask(running)["checkpoints"]
    assert found["path"] == found["name"] == "out/checkpoint-500" and found["step"] == 500 and found["resumable"]
    assert found["metrics"] == {"loss": 2.5, "eval_loss": 2.25, "epoch": 1.0} and found["size"] > 10
    assert waiting(running) == {"out/checkpoint-600": "there is no trainer_state.json"}
    assert files(running) == [
        f"out/checkpoint-500/{each}" for each in ("model.safetensors", "optimizer.pt", "trainer_state.json")
    ]


def test_a_checkpoint_of_the_trainer_without_its_optimizer_is_none_to_resume_from(running):
    write(running, "out/checkpoint-5/trainer_state.json", b'{"global_step": 5}')
    assert [each["resumable"] for each in ask(running)["checkpoints"]] == [False]


def test_a_checkpoint_that_is_written_again_in_its_folder_is_not_complete_by_its_old_state(running):
    trainer(running, 500)
    os.utime(Path(running.outputs, "out/checkpoint-500/trainer_state.json"), (1, 1))
    assert waiting(running) == {"out/checkpoint-500": "trainer_state.json is older than other files of it"}
    trainer(running, 500)
    write(running, "out/checkpoint-500/rng_state_1.pth")  # another rank is later
    assert listed(running) == ["out/checkpoint-500"]


def test_a_folder_of_accelerate_has_the_trainers_name_and_another_end(running):
    write(running, "out/checkpoint-7/model.safetensors", b"\2\0\0\0\0\0\0\0{}")
    assert listed(running) == []
    write(running, "out/checkpoint-7/random_states_0.pkl")
    assert listed(running) == ["out/checkpoint-7"]


def test_what_changed_within_the_quiet_time_is_not_complete(running):
    trainer(running, 500)
    write(running, "out/ckpt.pt", zipped())
    write(running, "out/notes.txt")
    rule(running, complete_when="3600s")
    assert listed(running) == [] == files(running)
    assert all("changed" in why and "3600 s" in why for why in waiting(running).values())
    os.utime(Path(running.outputs, "out/ckpt.pt"), (1, 1))  # a program can set the time of its file
    assert listed(running) == []


def test_what_a_process_has_open_for_writing_is_not_complete_under_any_name(running):
    target = write(running, "out/ckpt.pt", zipped())
    with open(target, "rb"):
        assert listed(running) == ["out/ckpt.pt"] == files(running)
    with open(target, "r+b"):
        os.rename(target, target.with_name("other.pt"))
        assert listed(running) == [] == files(running)
        assert waiting(running) == {"out/other.pt": "a process has it open for writing"}
    assert listed(running) == ["out/other.pt"]


def test_an_empty_file_is_not_complete(running):
    write(running, "out/ckpt.pt", b"")
    write(running, "out/DONE", b"")
    assert files(running) == [] and waiting(running) == {"out/ckpt.pt": "it is empty"}


def test_one_open_file_keeps_its_whole_folder(running):
    trainer(running, 500)
    with open(write(running, "out/checkpoint-500/rng_state_1.pth", zipped()), "ab"):
        assert files(running) == []
    assert len(files(running)) == 4


def test_a_log_goes_on_coming_home_as_it_grows_but_not_out_of_a_folder_that_is_not_complete(running):
    with open(write(running, "out/train.log"), "ab"):
        assert files(running) == ["out/train.log"]
    write(running, "out/checkpoint-9/train.log")
    assert files(running) == ["out/train.log"]


def test_a_unit_that_changes_while_it_is_hashed_is_left_out(running):
    trainer(running, 500)
    write(running, "out/a.txt")

    def add(done, total):
        write(running, "out/checkpoint-500/late.bin")

    built = manifest.build(running, complete=False, progress=add)
    assert [each["path"] for each in built["files"]] == ["out/a.txt"]


def test_the_same_without_a_run_is_complete_at_once_but_for_what_was_cut_off(run):
    slot.allocate(run)
    slot.write(run, ExitRecord("exit", 0, 1.0))
    trainer(run, 500)
    trainer(run, 600, state=False)
    write(run, "out/ckpt.pt", zipped()[:-30])
    assert listed(run) == ["out/checkpoint-500"]
    assert waiting(run) == {
        "out/checkpoint-600": "there is no trainer_state.json",
        "out/ckpt.pt": "ckpt.pt: its end is missing",
    }


@pytest.mark.parametrize("length", [*range(0, 30), 100, 200, -22, -10, -1])
def test_a_zip_or_safetensors_file_that_is_cut_off_anywhere_is_not_whole(tmp_path, length):
    file = tmp_path / "w.pt"
    file.write_bytes(zipped())
    assert cut_off(str(file)) is None
    if length:
        file.write_bytes(zipped()[:length])
        assert cut_off(str(file))
    header = json.dumps({"w": {"dtype": "U8", "shape": [300], "data_offsets": [0, 300]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(300)
    file = tmp_path / "w.safetensors"
    file.write_bytes(whole)
    assert cut_off(str(file)) is None
    file.write_bytes(whole[:length])
    assert cut_off(str(file))


def test_a_rule_names_its_checkpoints_and_what_shows_their_end(running):
    rule(running, pattern="out/save_*", complete_when="DONE")
    write(running, "out/save_1/w.bin")
    write(running, "out/save_1/DONE")
    write(running, "out/save_2/w.bin")
    assert listed(running) == [] and "changed" in waiting(running)["out/save_1"]  # the usual quiet time
    assert waiting(running)["out/save_2"] == "there is no DONE"
    assert read_rule(running) == Rule("out/save_*", "DONE")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("out/s*", "out/s1", True),
        ("out/s*", "out/s1/x", False),
        ("out/**", "out/s1/x", True),
        ("out/s?.pt", "out/s1.pt", True),
        ("out/s?.pt", "out/s1xpt", False),
        ("out/[a]", "out/a", False),
    ],
)
def test_the_stars_of_a_pattern(pattern, path, matches):
    assert Rule(pattern).matches(path) is matches


def test_the_mark_of_a_file_lies_beside_it(run):
    assert Rule("out/*.pt", "{name}.ok").marker_of("out/a.pt", is_folder=False) == "out/a.pt.ok"
    assert Rule("out/*", "DONE").marker_of("out/a", is_folder=True) == "out/a/DONE"


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),
        ("epoch=3-step=1200.ckpt", 1200),
        ("iter_0001000", 1000),
        ("global_step20", 20),
        ("ckpt_40.pt", 40),
        ("model-step-7-loss0.3.pt", 7),
        ("epoch-3", None),
        ("last.ckpt", None),
        ("ckpt.pt", None),
    ],
)
def test_the_step_that_a_name_says(name, step):
    assert step_in(name) == step


def test_files_form_units(run):
    paths = ["o/a.txt", "o/w.pt", "o/checkpoint-5/a", "o/checkpoint-5/step-1/b", "o/epoch=1.ckpt/x", "o/s1/y", "o/s1/z"]
    found = {unit.path: (unit.files, unit.is_checkpoint) for unit in find_units(paths, Rule("o/s*"))}
    assert found == {
        "o/a.txt": (["o/a.txt"], False),
        "o/w.pt": (["o/w.pt"], True),
        "o/checkpoint-5": (["o/checkpoint-5/a", "o/checkpoint-5/step-1/b"], True),
        "o/epoch=1.ckpt": (["o/epoch=1.ckpt/x"], True),
        "o/s1": (["o/s1/y", "o/s1/z"], True),
    }


def test_the_clock_is_that_of_the_disk(run, monkeypatch):
    write(run, "out/w.pt")
    monkeypatch.setattr(time, "time", lambda: 9e9)
    (judged,) = complete.judge(run.outputs, find_units(["out/w.pt"], Rule()), Rule())
    assert "changed" in judged.why


def test_a_recipe_of_gpuruns_lists_what_it_always_did(run):
    Path(run.job).write_text(json.dumps({"recipe": "sft", "checkpoints": {"complete_when": "0s"}}))
    write(run, "models/best/model.safetensors", b"\2\0\0\0\0\0\0\0{}")
    assert files(run) == [] and ask(run)["unfinished"] == []


def test_another_programs_manifest_says_nothing(running):
    write(running, "out/site/manifest.json", b'{"icons": []}')
    with open(write(running, "out/site/w.pt"), "ab"):
        assert files(running) == ["out/site/manifest.json"]
