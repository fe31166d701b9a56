"""Reading /proc, on a folder that stands in for it and on the real one."""

import os
import signal
import subprocess
import sys

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.box.processes import Process


@pytest.fixture
def proc(tmp_path):
    """A /proc put together from rows of (pid, parent, session, state, start, name, environment, devices)."""

    def make(*rows):
        for pid, parent, session, state, start, name, *more in rows:
            folder = tmp_path / str(pid)
            (folder / "fd").mkdir(parents=True)
            (folder / "stat").write_text(
                f"{pid} ({name}) {state} {parent} {pid} {session} " + "0 " * 15 + f"{start} 0 0\n"
            )
            (folder / "environ").write_bytes(more[0] if more else b"")
            for number, device in enumerate(more[1] if len(more) > 1 else ()):
                (folder / "fd" / str(number)).symlink_to(device)
        return str(tmp_path)

    return make


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields(proc):
    folder = proc((7, 1, 7, "S", 42, "a) S 1 (b"))
    assert processes.read(7, folder) == Process(7, 1, 7, "S", 42, "a) S 1 (b", group=7)


def test_those_who_have_ended_are_not_alive(proc):
    folder = proc((7, 1, 7, "Z", 42, "zombie"), (8, 1, 8, "T", 43, "stopped"))
    assert set(processes.scan(folder)) == {8}
    assert processes.is_alive(7, 42, folder) is None
    assert processes.is_alive(8, 43, folder) is not None


@pytest.mark.parametrize(("pid", "start"), [(8, 44), (9, 43), (None, None), ("8", 43)])
def test_a_pid_with_another_start_time_is_somebody_else(proc, pid, start):
    assert processes.is_alive(pid, start, proc((8, 1, 8, "S", 43, "x"))) is None


def test_the_cookie_is_a_whole_variable(proc):
    folder = proc(
        (7, 1, 7, "S", 1, "a", b"A=1\0GPURUN_RUN_ID=mine\0B=2\0"),
        (8, 1, 8, "S", 1, "b", b"NOT_GPURUN_RUN_ID=mine\0X=GPURUN_RUN_ID=mine\0"),
    )
    assert processes.cookie(7, folder) == "mine"
    assert processes.cookie(8, folder) is None
    assert processes.cookie(9, folder) is None


def test_a_family_is_found_through_parents_and_sessions_and_spares_who_is_named(proc):
    everything = processes.scan(
        proc(
            (1, 0, 1, "S", 0, "init"),
            (5, 1, 5, "S", 1, "supervisor"),
            (10, 5, 10, "S", 2, "payload"),
            (11, 10, 11, "S", 3, "worker with a session of its own"),
            (12, 1, 11, "S", 4, "double fork, same session"),
            (13, 12, 13, "S", 5, "its child in yet another session"),
            (20, 1, 20, "S", 6, "stranger"),
            (21, 20, 20, "S", 7, "stranger's child"),
        )
    )
    assert [p.pid for p in processes.family(everything, {10}, {1, 5})] == [10, 11, 12, 13]
    assert processes.family(everything, set(), {1, 5}) == []


def test_the_session_of_those_who_are_spared_is_nobodys_to_end(proc):
    everything = processes.scan(
        proc((5, 1, 5, "S", 1, "agent"), (6, 5, 5, "S", 2, "seed in its session"), (7, 5, 5, "S", 3, "its other child"))
    )
    assert [p.pid for p in processes.family(everything, {6}, {5})] == [6]


def test_gpus_that_are_open_are_counted_and_control_devices_are_not(proc):
    folder = proc(
        (
            7,
            1,
            7,
            "S",
            1,
            "a",
            b"",
            ["/dev/nvidia1", "/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"],
        )
    )
    assert processes.gpus_open(7, folder) == [0, 1]


def test_our_ancestors_lead_to_pid_1(proc):
    folder = proc(
        (1, 0, 1, "S", 0, "init"), (5, 1, 5, "S", 1, "sshd"), (9, 5, 9, "S", 2, "agent"), (10, 1, 10, "S", 3, "other")
    )
    assert processes.self_and_ancestors(folder, 9) == {1, 5, 9}


def test_a_signal_reaches_exactly_the_process_that_was_recorded():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = processes.read(child.pid)
    assert not processes.send(found._replace(start=found.start - 1), signal.SIGKILL)
    assert child.poll() is None
    assert processes.send(found, signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    assert not processes.send(found, signal.SIGKILL)


def test_this_machine_says_who_it_is():
    assert processes.boot_id() and processes.first_start() is not None
    assert processes.read(os.getpid()).name
    assert processes.boot_id("/no/such") is None and processes.first_start("/no/such") is None
