"""runner/store.py: run records that survive crashes, strangers and older versions."""

import dataclasses
import errno
import json
import re
import time
from pathlib import Path

import pytest

from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.errors import DiskTrouble, NotStarted, StartedElsewhere, StateError, UnknownRun
from runner.domain.job import Job, Resources
from runner.domain.run import Run, RunChanges, mint_id


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def make(name: str = "legal", now: float | None = None) -> Run:
    run = Run(
        run_id=mint_id(name, now),
        job=Job(name).at(Path("/"), Path("/x.yaml"), ()),
        host="local",
        created_at=now or time.time(),
    )
    store.create(run)
    return run


def test_what_is_saved_is_loaded() -> None:
    run = make()
    run.status = Status(run.run_id, "running", gpus=(0, 1), progress={"step": {"step": 1}})
    store.save(run)
    assert store.load(run.run_id) == run


def test_every_field_that_may_change_is_a_field_of_the_run_with_its_type() -> None:
    fields = {each.name: each.type for each in dataclasses.fields(Run)}
    changes = {name: hint.__forward_arg__ for name, hint in RunChanges.__annotations__.items()}
    assert changes == {name: fields[name] for name in changes}


def test_no_name_means_the_latest_run() -> None:
    make("old", 1_700_000_000)
    first, second = make(now=1_800_000_000), make(now=1_800_000_000)
    assert store.find(None).run_id == second.run_id
    assert store.run_ids()[-2] == first.run_id


def test_a_submission_that_failed_before_its_launch_is_never_replaced_by_an_older_run_that_nobody_named() -> None:
    started = make(now=1_700_000_000)
    started.attempted = True
    store.save(started)
    refused = make(now=1_800_000_000)
    assert store.find(None).run_id == refused.run_id
    for name in (None, refused.run_id, "legal"):
        with pytest.raises(NotStarted, match=refused.run_id) as caught:
            store.find_started(name)
        assert f"gpurun submit /x.yaml --host local --run {refused.run_id}" in caught.value.hint
    with pytest.raises(NotStarted) as caught:
        store.find_started(None)
    assert f"name the run that you mean: {started.run_id}" in caught.value.hint
    assert store.find_started(started.run_id).run_id == started.run_id


def test_a_run_is_found_by_its_beginning_or_ending_when_that_is_unique() -> None:
    one = make("legal", 1_700_000_000)
    make("brie", 1_700_000_001)
    assert store.find("legal").run_id == one.run_id
    assert store.find(one.run_id[-4:]).run_id == one.run_id
    with pytest.raises(UnknownRun, match="fits 2 runs"):
        make("legal-two", 1_700_000_002)
        store.find("le")


def test_a_jobs_name_means_its_newest_run_and_no_other_jobs() -> None:
    make("legal", 1_700_000_000)
    newest = make("legal", 1_700_000_001)
    make("legal-v2", 1_700_000_002)
    assert store.find("legal").run_id == newest.run_id


@pytest.mark.parametrize("name", ["nothing", "../../etc", "", "-rf"])
def test_an_unknown_run_is_said_to_be_unknown(name: str) -> None:
    make()
    with pytest.raises(UnknownRun):
        store.find(name)


def test_with_no_run_at_all_the_next_step_is_named() -> None:
    with pytest.raises(UnknownRun) as caught:
        store.find(None)
    assert "submit" in caught.value.hint


def test_a_record_cut_at_any_byte_is_whole_or_a_named_error(home: Path) -> None:
    run = make()
    file = places.run_folder(run.run_id) / "run.json"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(StateError, match=run.run_id):
            store.load(run.run_id)
    runs, damaged = store.load_all()
    assert not runs and len(damaged) == 1


def test_a_record_with_unknown_fields_of_a_newer_version_is_read() -> None:
    run = make()
    file = places.run_folder(run.run_id) / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "invented": 1}))
    assert store.load(run.run_id) == run


def test_a_failed_write_leaves_the_old_record_and_no_litter(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make()
    run.job = Job("legal", settings={"bad": object()})
    with pytest.raises(TypeError):
        store.save(run)
    assert store.load(run.run_id).job.settings == {}
    assert {entry.name for entry in places.run_folder(run.run_id).iterdir()} == {"run.json", ".born"}


WRONG = {
    "job": 7, "host": None, "created_at": "yesterday", "launched": "no", "status": {"phase": "resting"}, "fetched_into": "../x",
    "root": "/../../1", "run_id": "other-20260102-142030-7f3a", "job_file": "a\x1b[2Jb", "volume": ["/mnt"], "done": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_another_type_is_a_damaged_record_that_is_named_and_hides_no_other(name: str) -> None:
    good, bad = make(now=1_700_000_000), make(now=1_800_000_000)
    file = places.run_folder(bad.run_id) / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: WRONG[name]}))
    with pytest.raises(StateError, match=name) as caught:
        store.load(bad.run_id)
    assert str(file) in caught.value.message and caught.value.exit_code == 2
    runs, damaged = store.load_all()
    assert [run.run_id for run in runs] == [good.run_id] and len(damaged) == 1
    with pytest.raises(StateError, match=bad.run_id):  # and never the older run instead
        store.find(None)


WRONG_JOBS = {
    "job.name": {"name": None}, "job.command": {"command": "train"}, "job.data[1].as": {"data": ["a", {"path": "b"}]},
    "job.resources.gpus": {"resources": {"gpus": "some"}}, "job.resources.disk": {"resources": {"disk": "much"}},
    "job.environment.variables.A": {"environment": {"variables": {"A": 1}}}, "job.time_limit": {"time_limit": 12},
    "job.settings.evaluation.metric": {"settings": {"evaluation": {"metric": []}}},
    "job.smoke_test.tolerance.cpu": {"smoke_test": {"tolerance": {"cpu": "0"}}},
}  # fmt: skip


@pytest.mark.parametrize("path", WRONG_JOBS)
def test_a_field_of_another_type_in_the_job_of_a_record_is_named_by_its_path(path: str) -> None:
    run = make()
    file = places.run_folder(run.run_id) / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "job": {**record["job"], **WRONG_JOBS[path]}}))
    with pytest.raises(StateError, match=re.escape(f"({path}: ")):
        store.load(run.run_id)


def test_a_job_of_another_version_is_read_with_its_own_settings_and_the_defaults_of_what_it_lacks() -> None:
    run = make()
    file = places.run_folder(run.run_id) / "run.json"
    recorded = {
        "name": "legal",
        "recipe": "classify",
        "settings": {"invented": {"a": [1]}},
        "invented": 1,
        "resources": {"invented": 2, "gpus": 0, "vram": "20GiB"},
    }
    file.write_text(json.dumps({**json.loads(file.read_text()), "job": recorded}))
    job = store.load(run.run_id).job
    assert job.settings == {"invented": {"a": [1]}} and (job.resources.gpus, job.resources.vram) == (0, 20 << 30)
    assert dataclasses.replace(job, settings={}, resources=Resources(), recipe=None) == Job("legal")


def test_a_record_of_the_future_says_so() -> None:
    run = make()
    file = places.run_folder(run.run_id) / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 2}))
    with pytest.raises(StateError, match="a newer gpurun wrote it"):
        store.load(run.run_id)


def test_a_folder_that_never_got_its_record_hides_no_run_and_one_that_lost_it_is_named() -> None:
    run = make(now=1_700_000_000)
    later = places.run_folder(mint_id("legal", 1_800_000_000))
    later.mkdir()
    (later / ".born").touch()
    assert store.find(None).run_id == run.run_id and store.run_ids() == [run.run_id]
    (later / "log").write_text("it ran")
    with pytest.raises(StateError, match=later.name):
        store.find(None)


def test_a_disk_that_fills_while_a_run_is_put_down_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(now=1_700_000_000)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(DiskTrouble, match=r"the disk of this machine is full: .*[0-9] [KMGT]?B are free"):
            make(now=1_800_000_000)
    assert [entry.name for entry in places.runs().iterdir()] == [run.run_id]


def test_an_id_that_is_taken_is_said_to_be_taken() -> None:
    run = make()
    with pytest.raises(FileExistsError):
        store.create(run)
    assert store.load(run.run_id) == run and len(list(places.runs().iterdir())) == 1


def unsaved(name: str) -> Run:
    return Run(mint_id(name), Job(name).at(Path("/"), Path("/x.yaml"), ()), "local", time.time())


def test_one_run_takes_the_place_of_another_however_many_want_it() -> None:
    earlier = make()
    first, second = unsaved("first"), unsaved("second")
    assert store.take_place(earlier, first) is first
    assert store.take_place(store.load(earlier.run_id), second).run_id == first.run_id
    assert store.load(earlier.run_id).went_on_as == first.run_id and second.run_id not in store.run_ids()
    store.give_place_back(earlier, first)
    assert store.load(earlier.run_id).went_on_as is None and first.run_id not in store.run_ids()
    assert store.take_place(earlier, second) is second
    store.note_attempt(second, {})
    store.give_place_back(earlier, second)
    assert store.load(earlier.run_id).went_on_as == second.run_id, "a box was asked to start it"


def test_a_run_is_asked_for_on_one_box_alone() -> None:
    run = make()
    mine, theirs = store.load(run.run_id), store.load(run.run_id)
    assert store.send_to(theirs, "other")
    with pytest.raises(StartedElsewhere, match="on other"):
        store.note_attempt(mine, {})
    assert not store.load(run.run_id).attempted
    store.note_attempt(theirs, {"corpus": "corpus-1"})
    assert not store.send_to(mine, "third") and store.send_to(mine, "other")
    assert store.load(run.run_id).data == {"corpus": "corpus-1"}


def test_a_run_whose_place_was_given_back_is_not_asked_for() -> None:
    earlier, new = make(), unsaved("new")
    new.parent = earlier.run_id
    mine = store.take_place(earlier, new)
    store.give_place_back(store.load(earlier.run_id), new)
    with pytest.raises(NotStarted, match="given up"):
        store.note_attempt(mine, {})
    assert new.run_id not in store.run_ids()
