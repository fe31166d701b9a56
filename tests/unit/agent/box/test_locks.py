"""Locks: held means alive, and asking leaves no trace."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from remote_payload.agent.box import locks
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths


@pytest.fixture(autouse=True)
def volatile(tmp_path, monkeypatch):
    """A folder of this test's own instead of the machine's."""
    folder = tmp_path / "volatile"
    monkeypatch.setattr(locks, "volatile_folder", lambda run_id=None: str(folder / run_id if run_id else folder))
    return folder


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path):
    path = str(tmp_path / "lock")
    assert not locks.is_held(path)
    held = locks.take(path)
    assert locks.is_held(path) and locks.take(path) is None
    os.close(held)
    assert not locks.is_held(path)


def test_a_process_that_is_killed_frees_its_lock(tmp_path):
    path = str(tmp_path / "lock")
    program = "import sys,time; from remote_payload.agent.box import locks; locks.take(sys.argv[1]); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)
    child.stdout.readline()
    assert locks.is_held(path)
    child.kill()
    child.wait()
    child.stdout.close()
    assert not locks.is_held(path)


def test_asking_never_looks_like_holding(tmp_path):
    path = str(tmp_path / "lock")
    os.close(locks.take(path))
    stop, seen = threading.Event(), []

    def ask():
        while not stop.is_set():
            seen.append(locks.is_held(path))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    taken = []
    for _ in range(200):  # nobody but us takes it, so it must be ours every time
        held = locks.take(path)
        taken.append(held is not None)
        if held is not None:
            os.close(held)
    stop.set()
    for asker in askers:
        asker.join()
    assert all(taken)


def test_a_lock_whose_file_was_removed_under_us_is_taken_again(tmp_path):
    path = str(tmp_path / "lock")
    first = locks.take(path)
    waiting = os.open(path, os.O_RDWR)
    locks.drop(path, first)
    assert not os.path.exists(path)
    held = locks.take(path)
    assert locks.is_held(path) and os.fstat(held).st_ino == os.stat(path).st_ino
    os.close(waiting)
    os.close(held)


def test_a_folder_that_others_may_enter_is_refused(volatile):
    volatile.mkdir(mode=0o755)
    with pytest.raises(AgentError, match="others may enter"):
        locks.make_volatile()


def test_a_link_in_place_of_the_folder_is_refused(volatile, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    volatile.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AgentError, match="belongs to somebody else"):
        locks.make_volatile()


def test_a_folder_of_another_user_is_refused(volatile):
    if os.getuid():
        pytest.skip("needs root, to give a folder away")
    volatile.mkdir(mode=0o700)
    os.chown(volatile, 12345, 12345)
    with pytest.raises(AgentError, match="belongs to somebody else"):
        locks.make_volatile()


def test_a_lock_that_becomes_free_in_time_is_taken(tmp_path):
    path = str(tmp_path / "lock")
    held = locks.take(path)
    assert locks.take_within(path, 0.1) is None
    threading.Timer(0.2, os.close, (held,)).start()
    descriptor = locks.take_within(path, 20)
    assert descriptor is not None and locks.is_held(path)
    os.close(descriptor)


def test_where_the_filesystem_cannot_lock_the_lock_lies_in_memory(tmp_path, volatile, monkeypatch):
    run = BoxPaths(str(tmp_path / "root")).run("x-20260102-142030-7f3a")
    real = fcntl.flock

    def flock(descriptor, mode):
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path / "root")):
            raise OSError(errno.ENOLCK, "No locks available")
        real(descriptor, mode)

    monkeypatch.setattr(fcntl, "flock", flock)
    held = locks.take_run(run)
    assert locks.is_held(locks.run_lock(run)) and locks.run_lock(run).startswith(str(volatile))
    assert locks.take_run(run) is None
    locks.leave_run(run, held)
    assert not locks.is_held(locks.run_lock(run))
