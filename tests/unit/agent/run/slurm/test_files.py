"""The files through which a login node and compute nodes speak: the heartbeat, the owner, notes, encrypted secrets."""

import os
import random
import threading
import time

import pytest

from remote_payload.agent.run.slurm import attempt, files, sealed
from remote_payload.agent.run.slurm.files import FRESH, Attempt
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

FIRST, SECOND = Attempt(7, 0, "n1"), Attempt(7, 1, "n2")


@pytest.fixture
def run(tmp_path) -> RunPaths:
    found = BoxPaths(str(tmp_path / "root")).run("x-20260102-142030-7f3a")
    os.makedirs(found.slurm)
    return found


def beat(run: RunPaths, ago: float) -> None:
    files.touch_heartbeat(run)
    os.utime(os.path.join(run.slurm, "heartbeat"), (time.time() - ago,) * 2)


def test_the_age_of_a_heartbeat_is_by_the_disk_and_not_by_this_machines_clock(run, monkeypatch) -> None:
    assert files.heartbeat_age(run) is None
    files.touch_heartbeat(run)
    monkeypatch.setattr(time, "time", lambda: 9e9)
    assert 0 <= (files.heartbeat_age(run) or 0.0) < 30


def test_the_number_is_written_once(run) -> None:
    files.write_number(run, 7)
    files.write_number(run, 8)
    assert files.read_number(run) == 7


def test_a_job_that_is_not_the_runs_does_not_touch_it(run) -> None:
    files.write_number(run, 7)
    assert not attempt.take_over(run, Attempt(8, 0, "n1"))
    assert files.read_owner(run) is None and files.heartbeat_age(run) is None


def test_a_second_start_waits_until_the_first_has_let_go(run) -> None:
    assert attempt.take_over(run, FIRST)
    taken = threading.Event()
    thread = threading.Thread(target=lambda: attempt.take_over(run, SECOND) and taken.set())
    thread.start()
    try:
        while attempt.has(run, FIRST):  # as the first start looks with each heartbeat
            time.sleep(0.01)
        assert not taken.wait(2 * attempt.LOOK_EVERY)
        files.remove_heartbeat(run)
        assert taken.wait(10)
    finally:
        files.remove_heartbeat(run)
        thread.join()


def test_a_second_start_does_not_wait_for_one_that_has_been_silent(run) -> None:
    assert attempt.take_over(run, FIRST)
    beat(run, FRESH + 1)
    assert attempt.take_over(run, SECOND) and (files.heartbeat_age(run) or 0.0) < FRESH


def test_secrets_are_nowhere_without_their_key(run) -> None:
    draw = random.Random(7)
    for _ in range(50):
        secrets = {
            f"NAME_{i}": "".join(draw.choices('abcdefé\n"', k=draw.randrange(1, 60)))
            for i in range(draw.randrange(1, 5))
        }
        key = sealed.seal(run, secrets)[sealed.VARIABLE]
        with open(files.secrets(run), "rb") as file:
            raw = file.read()
        assert os.stat(files.secrets(run)).st_mode & 0o777 == 0o600
        assert b"NAME_0" not in raw and sealed.unseal(run, key) == secrets
        with pytest.raises(OSError, match="cannot be read"):
            sealed.unseal(run, os.urandom(len(raw)).hex())
    assert sealed.seal(run, {}) == {} and sealed.unseal(run, "") == {}
