"""The box in trouble: killed, stopped, full, restarted. What is said of the run stays true."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remote_payload.agent.box import locks, processes
from remote_payload.agent.box.files import read_json
from runner.domain.errors import BoxNotReady, GpurunError
from tests.support.agent import FROM_SOURCE, launch, run_id, running_agent, status, until_finished, wait_until


def test_the_exit_code_survives_a_disk_that_was_filled(tmp_path):
    if os.getuid():
        pytest.skip("needs root, to mount a small tmpfs")
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)], check=True)
    try:
        run = run_id()
        with running_agent(home) as agent:
            launch(
                agent, ["sh", "-c", "cat /dev/zero > $GPURUN_OUTPUTS/fill; echo 'No space left on device'; exit 7"], run
            )
            final = until_finished(agent, run)
            assert (final["exit"]["number"], final["outcome"], final["cause"]) == (7, "failed", "disk_full")
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def test_a_disk_without_room_refuses_the_launch_and_leaves_nothing(tmp_path):
    if os.getuid():
        pytest.skip("needs root, to mount a small tmpfs")
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(home)], check=True)
    try:
        run = run_id()
        (home / ".gpurun-box").mkdir()
        subprocess.run(["cp", "/dev/zero", str(home / "fill")], stderr=subprocess.DEVNULL)
        with running_agent(home) as agent, pytest.raises(BoxNotReady, match="full"):
            launch(agent, ["true"], run)
        assert not (home / ".gpurun-box" / "runs" / run).exists()
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def test_a_killed_supervisor_leaves_an_orphan_that_goes_on_and_can_be_stopped(agent, paths):
    run = run_id()
    launch(agent, ["sh", "-c", "while :; do echo tick; sleep 0.1; done"], run)
    os.kill(read_json(paths.run(run).owner)["pid"], signal.SIGKILL)
    wait_until(lambda: status(agent, run)["orphaned"])
    before = status(agent, run)["log_size"]
    wait_until(lambda: status(agent, run)["log_size"] > before)
    answer = agent.call("stop", {"run_id": run, "grace": 2})
    assert answer["survivors"] == [] and answer["status"]["outcome"] == "cancelled"
    assert run not in processes.by_cookie(processes.scan())


# Each gives up one more sign of whose process it is, says what its pid is, and goes on.
UNMARKED = {
    "environment cleared": "os.execve(sys.executable, [sys.executable, '-c', WAIT], {})",
    "environment cleared, no output": "void(); os.execve(sys.executable, [sys.executable, '-c', WAIT], {})",
    "environment overwritten": "libc.memset(address(), 0, size()); exec(WAIT)",
    "a child with a session of its own": "subprocess.Popen([sys.executable, '-c', WAIT], env={}, start_new_session=True).wait()",
    "a child with nothing but its session": "void(); subprocess.Popen([sys.executable, '-c', WAIT], env={}).wait()",
}
UNMARK = r"""
import ctypes, os, subprocess, sys
WAIT = "import os, sys, time; open(%r, 'w').write('%%d ' %% os.getpid()); time.sleep(300)"
libc = ctypes.CDLL(None)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
fields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
address, size = lambda: int(fields[47]), lambda: int(fields[48]) - int(fields[47])
def void():
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
"""


@pytest.mark.parametrize("how", UNMARKED)
def test_a_living_process_without_cookie_keeps_its_run_alive_though_the_supervisor_is_killed(
    agent, paths, tmp_path, how
):
    run, told = run_id(), tmp_path / "told"
    launch(agent, [sys.executable, "-c", UNMARK % str(told) + UNMARKED[how]], run, secrets={"HF_TOKEN": "hf_x"})
    pid = int(wait_until(lambda: told.exists() and told.read_text().endswith(" ") and told.read_text()))
    living, owner = processes.read(pid), read_json(paths.run(run).owner)
    os.kill(owner["pid"], signal.SIGKILL)
    if pid != owner["payload"]["pid"]:
        os.kill(owner["payload"]["pid"], signal.SIGKILL)
    lives = wait_until(lambda: ((seen := status(agent, run))["orphaned"] and seen) or seen["phase"] == "finished")
    assert lives is not True and lives["phase"] == "running"
    with pytest.raises(GpurunError, match="still going"):
        agent.call("wipe", {"run_id": run})
    kept = agent.call("clean", {"dry_run": False, "run_ids": [run]})["kept"]
    assert [item["why"] for item in kept if item["path"] == f"runs/{run}"] == ["it is not over"]
    assert agent.call("stop", {"run_id": run, "grace": 1})["survivors"] == []
    assert processes.is_alive(pid, living.start) is None
    assert status(agent, run)["outcome"] == "cancelled"


NO_OWNER = {
    "gone": os.unlink,
    "torn": lambda path: os.truncate(path, 20),
    "of other types": lambda path: Path(path).write_text('{"pid": "7", "start": [], "gpus": {}, "started_at": "soon"}'),
    "a folder": lambda path: (os.unlink(path), os.mkdir(path)),
}


@pytest.mark.parametrize("damage", NO_OWNER)
def test_a_damaged_owner_changes_nothing_about_what_is_said(agent, paths, damage):
    run = run_id()
    launch(agent, ["sleep", "300"], run)
    NO_OWNER[damage](paths.run(run).owner)
    seen = status(agent, run)
    assert (seen["phase"], seen["orphaned"], seen["started_at"], seen["gpus"]) == ("running", False, None, [])
    assert agent.call("stop", {"run_id": run, "grace": 1})["survivors"] == []
    assert status(agent, run)["outcome"] == "cancelled"


def test_a_run_whose_owner_and_processes_are_gone_was_started_all_the_same(agent, paths):
    run = run_id()
    launch(agent, ["sleep", "300"], run)
    owner = read_json(paths.run(run).owner)
    for pid in (owner["pid"], owner["payload"]["pid"]):
        os.kill(pid, signal.SIGKILL)
    os.unlink(paths.run(run).owner)
    wait_until(lambda: status(agent, run)["phase"] == "finished")
    assert (status(agent, run)["outcome"], status(agent, run)["cause"]) == ("lost", "vanished")


@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 0)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exit_is_known_though_its_slot_was_damaged(agent, paths, damage, when):
    run = run_id()
    launch(agent, ["sh", "-c", "until [ -e go ]; do sleep 0.05; done; exit 3"], run)
    if when == "before":
        damage(paths.run(run).exit_slot)
    open(paths.run(run).code + "/go", "w").close()
    until_finished(agent, run)
    if when == "after":
        damage(paths.run(run).exit_slot)
    seen = status(agent, run)
    assert (seen["outcome"], seen["exit"]["kind"], seen["exit"]["number"]) == ("failed", "exit", 3)


def test_an_orphan_that_ends_by_itself_is_lost_with_its_last_words(agent, paths):
    run = run_id()
    launch(
        agent, ["sh", "-c", "sleep 1; echo torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.64 GiB"], run
    )
    os.kill(read_json(paths.run(run).owner)["pid"], signal.SIGKILL)
    wait_until(lambda: status(agent, run)["phase"] == "finished")
    final = status(agent, run)
    assert final["outcome"] == "lost" and "CUDA out of memory" in final["evidence"]


def test_a_stopped_payload_is_stalled_not_dead(agent):
    run = run_id()
    launch(agent, ["sleep", "60"], run)
    os.kill(status(agent, run)["pid"], signal.SIGSTOP)
    wait_until(lambda: status(agent, run)["stalled"])
    assert status(agent, run)["phase"] == "running"
    os.kill(status(agent, run)["pid"], signal.SIGCONT)
    wait_until(lambda: not status(agent, run)["stalled"])
    agent.call("stop", {"run_id": run, "grace": 1})


def test_a_deleted_run_folder_is_lost_not_succeeded(agent, paths):
    run = run_id()
    launch(agent, ["sh", "-c", "sleep 1; exit 0"], run)
    subprocess.run(["rm", "-rf", paths.run(run).folder], check=True)
    assert status(agent, run)["phase"] == "running"
    wait_until(lambda: status(agent, run)["phase"] == "finished")
    assert status(agent, run)["outcome"] == "lost"


def test_a_lock_whose_file_was_removed_is_no_false_death(agent, paths):
    run = run_id()
    launch(agent, ["sleep", "60"], run)
    os.unlink(locks.run_lock(paths.run(run)))
    assert status(agent, run)["phase"] == "running" and not status(agent, run)["orphaned"]
    assert agent.call("stop", {"run_id": run, "grace": 1})["survivors"] == []
    assert status(agent, run)["outcome"] == "cancelled"


def test_hardware_is_sampled_while_the_run_lasts(agent, paths):
    run = run_id()
    launch(agent, ["sleep", "60"], run)
    began = time.monotonic()
    wait_until(lambda: status(agent, run)["progress"].get("hardware"))
    assert time.monotonic() - began > 1
    agent.call("stop", {"run_id": run, "grace": 1})


def test_a_container_that_was_restarted_interrupted_its_run(home, paths):
    if os.getuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare, for a PID namespace")
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *FROM_SOURCE]
    run = run_id()
    with running_agent(home, container) as agent:
        launch(agent, ["sleep", "300"], run)
        assert status(agent, run)["phase"] == "running"
        agent._pipe.process.kill()  # its PID 1 and all that is in it
        agent._pipe.process.wait()
    wait_until(lambda: not locks.is_held(locks.run_lock(paths.run(run))))
    with running_agent(home, container) as agent:
        seen = status(agent, run)
        assert (seen["phase"], seen["outcome"], seen["cause"]) == ("finished", "interrupted", "box_restarted")
