"""runner/workflow/observing/follow.py: the local copy, whose size is the offset."""

from pathlib import Path

import pytest

from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.errors import HostError
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.workflow.observing.follow import LocalCopy, TailStream, remember_status


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    run = Run(mint_id("x"), Job("x"), "local", 0.0)
    store.create(run)
    return run


def log_of(run: Run) -> bytes:
    return (places.run_folder(run.run_id) / "log").read_bytes()


def test_bytes_sent_twice_are_written_and_shown_once(run: Run) -> None:
    copy = LocalCopy(run)
    assert copy.write_log(0, b"hello ") == b"hello "
    assert copy.write_log(3, b"lo world") == b"world"
    assert copy.write_log(0, b"hello") == b""
    assert log_of(run) == b"hello world"


def test_a_new_process_goes_on_where_the_last_one_ended(run: Run) -> None:
    LocalCopy(run).write_log(0, b"first")
    again = LocalCopy(run)
    assert again.log_offset == 5
    again.write_log(5, b" second")
    assert log_of(run) == b"first second"


def test_bytes_that_would_leave_a_hole_are_refused(run: Run) -> None:
    with pytest.raises(HostError, match="left out 7 bytes"):
        LocalCopy(run).write_log(7, b"x")


def test_two_readers_of_one_run_write_the_same_bytes_to_the_same_places(run: Run) -> None:
    one, other = LocalCopy(run), LocalCopy(run)
    one.write_log(0, b"abc")
    other.write_log(0, b"abcdef")
    one.write_log(3, b"def")
    assert log_of(run) == b"abcdef"


def test_only_who_brings_the_log_says_which_file_the_copy_continues(run: Run) -> None:
    """Otherwise a log that was replaced on the box would be continued in the middle of the new one."""
    LocalCopy(run).is_of("1:2")
    remember_status(run, Status(run.run_id, "running", generation="1:3"))
    TailStream(5).is_of("1:3")
    assert store.load(run.run_id).generation == "1:2" == LocalCopy(run).generation
