"""The exit slot on disk."""

import os
from pathlib import Path

import pytest

from remote_payload.agent.run import slot
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.protocol import SLOT_SIZE, ExitRecord

RUN = "x-20260102-142030-5107"
RECORD = ExitRecord("exit", 3, 1.5)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(slot, "volatile_folder", lambda run_id: str(tmp_path))
    folder = tmp_path / RUN
    folder.mkdir()
    return RunPaths(str(folder))


def test_a_slot_is_empty_until_it_is_written_and_never_grows(run):
    descriptor = slot.allocate(run)
    assert slot.read(run) is None and os.path.getsize(run.exit_slot) == SLOT_SIZE
    slot.write(run, RECORD, descriptor)
    assert slot.read(run) == RECORD and os.path.getsize(run.exit_slot) == SLOT_SIZE
    os.close(descriptor)


def test_a_slot_is_never_allocated_twice(run):
    os.close(slot.allocate(run))
    with pytest.raises(FileExistsError):
        slot.allocate(run)


def test_a_slot_that_is_torn_at_any_byte_is_empty(run):
    descriptor = slot.allocate(run)
    slot.write(run, RECORD, descriptor)
    whole = Path(run.exit_slot).read_bytes()
    text = len(whole.rstrip())
    for length in range(text):
        with open(run.exit_slot, "wb") as file:
            file.write(whole[:length].ljust(SLOT_SIZE))
        assert slot.read(run) is None
    os.close(descriptor)


def test_an_exit_that_the_disk_does_not_take_is_kept_in_memory(run):
    slot.write(run, RECORD)  # no slot at all: as on a filesystem that has turned read-only
    assert slot.read(run) == RECORD


def test_an_exit_is_written_in_the_place_of_an_empty_folder(run, tmp_path):
    descriptor = slot.allocate(run)
    os.unlink(run.exit_slot)
    os.mkdir(run.exit_slot)
    slot.write(run, RECORD, descriptor)
    os.close(descriptor)
    assert (
        os.path.isfile(run.exit_slot) and not (tmp_path / "exit").exists()
    )  # not only in memory, which a restart empties
    assert slot.read(run) == RECORD


def test_an_exit_is_kept_in_memory_where_a_folder_with_something_in_it_took_the_slots_place(run, tmp_path):
    os.makedirs(run.exit_slot + "/full")
    slot.write(run, RECORD)
    assert (tmp_path / "exit").exists() and slot.read(run) == RECORD
