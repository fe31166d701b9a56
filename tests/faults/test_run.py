"""What befalls a run and its box, and what gpurun says of it: never "dead" of what lives, nor "alive" of what is not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import SSHD, Box, only_as_root, small_disk
from tests.support.boxes.container import container
from tests.support.cli import Gpurun
from tests.support.figures import Record

WAIT = """
import os, time
print("begun", flush=True)
while not os.path.exists(os.path.expanduser("~/go")):
    time.sleep(0.05)
print("done", flush=True)
"""


def begun(gpurun: Gpurun, job: Any, program: str = WAIT, **fields: Any) -> str:
    """A run whose payload has said its first word."""
    run_id = gpurun.submit(job(program, **fields))
    wait_until(lambda: "begun" in (gpurun.box_run(run_id) / "log").read_text())
    return run_id


def owner(gpurun: Gpurun, run_id: str) -> dict[str, Any]:
    import json

    answer: dict[str, Any] = json.loads((gpurun.box_run(run_id) / "owner.json").read_text())
    return answer


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signals a recorded process, and awaits its end for KILL."""
    victim = processes.read(pid)
    assert victim is not None
    processes.send(victim, number)
    if number == signal.SIGKILL:
        wait_until(lambda: processes.is_alive(pid, victim.start) is None)


def seen(gpurun: Gpurun, run_id: str | None = None) -> dict[str, Any]:
    said = gpurun("status", *([run_id] if run_id else []), "--json", check=None)
    assert said.returncode in (0, 12)  # 12: its box does not know it
    answer: dict[str, Any] = json.loads(said.stdout)["status"]
    return answer


def test_31_a_dead_sshd_does_not_end_the_run(gpurun: Gpurun, box: Box, job: Any) -> None:
    begun(gpurun, job)
    following = gpurun.start("logs", "-f")
    assert following.stdout is not None and following.stdout.readline() == "begun\n"
    box.end_sshd()
    (box.home / "go").touch()
    box.start_sshd()
    out, said = following.communicate(timeout=90)
    assert following.returncode == 0 and out == "done\n", said
    assert seen(gpurun)["outcome"] == "succeeded"


def test_32_a_killed_supervisor_leaves_an_orphan_that_can_be_followed_and_stopped(
    gpurun: Gpurun, box: Box, job: Any, figure: Record
) -> None:
    run_id = begun(gpurun, job)
    kill(owner(gpurun, run_id)["pid"])
    orphan = seen(gpurun)
    figure('false "dead" and false "alive"', int((orphan["phase"], orphan["orphaned"]) != ("running", True)), 0)
    assert gpurun("logs").stdout == "begun\n"
    stopped = gpurun.json("stop", "--grace", "1")
    assert stopped["status"]["phase"] == "finished" and stopped["status"]["outcome"] == "cancelled"
    assert not processes.by_cookie(processes.scan()).get(run_id)


def test_33_a_payload_killed_by_9_is_told_with_its_signal(gpurun: Gpurun, job: Any) -> None:
    run_id = begun(gpurun, job)
    kill(owner(gpurun, run_id)["payload"]["pid"])
    assert "signal 9" in gpurun("logs", "-f", check=10).stderr
    status = seen(gpurun)
    assert (status["outcome"], status["cause"]) == ("failed", "signal 9")
    assert status["exit"]["kind"] == "signal" and status["exit"]["number"] == 9


@contextmanager
def little_memory(limit: int) -> Iterator[Path]:
    """A control group (version 1 or 2) with a limit; its cgroup.procs."""
    one = Path("/sys/fs/cgroup/memory")
    parent, name = (one, "memory.limit_in_bytes") if one.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = parent / f"gpurun-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(limit))
    except OSError as error:
        pytest.skip(f"needs a control group for memory that may be written ({error})")
    try:
        yield group / "cgroup.procs"
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()


def test_33_out_of_memory_is_told_from_the_control_group(gpurun: Gpurun, box: Box, job: Any) -> None:
    only_as_root()
    with little_memory(250 << 20) as members:
        box.end_sshd()
        starting = ["sh", "-c", f'echo $$ > {members} && exec "$@"', "sh", SSHD, "-f", str(box.config)]
        subprocess.run(starting, check=True, stdin=subprocess.DEVNULL)
        wait_until(lambda: box.local.port() == box.port)
        gpurun.submit(job("print('begun', flush=True)\nheap = []\nwhile True:\n    heap.append(bytearray(16 << 20))"))
        said = gpurun("logs", "-f", check=10).stderr
        status = seen(gpurun)
        box.end_sshd()
    assert status["cause"] == "host_oom", status
    assert "host_oom" in said


OTHER_BOOT = "echo 6ac1e9e2-0000-4000-8000-5c1e6f5c0001 > /dev/shm/boot && mount --bind /dev/shm/boot /proc/sys/kernel/random/boot_id"


@pytest.mark.parametrize(
    "prepare",
    [[], pytest.param([OTHER_BOOT], marks=pytest.mark.slow)],
    ids=["34-container-restarted", "35-box-rebooted"],
)
def test_34_35_a_run_does_not_survive_its_container_nor_pretend_to(
    gpurun: Gpurun, box: Box, job: Any, figure: Record, prepare: list[str]
) -> None:
    address = box.address()
    with container(box):
        gpurun("submit", str(job(WAIT)), "--host", address)
        run_id = gpurun.json("list")["runs"][0]["run_id"]
        wait_until(lambda: "begun" in (gpurun.box_run(run_id) / "log").read_text())
        assert seen(gpurun)["phase"] == "running"
    unreachable = gpurun.json("status")
    assert unreachable["unreachable"] and unreachable["status"]["phase"] == "running"  # as last seen, and it says so
    with container(box, *prepare):
        status = seen(gpurun)
        said = gpurun("logs", "-f", check=12).stderr
    figure('false "dead" and false "alive"', int(status["phase"] != "finished"), 0)
    assert (status["outcome"], status["cause"]) == ("interrupted", "box_restarted")
    assert "interrupted" in said


@pytest.mark.slow
def test_36_a_recycled_pid_is_not_mistaken_for_the_run_and_not_signalled(
    gpurun: Gpurun, box: Box, job: Any, figure: Record
) -> None:
    address = box.address()
    with container(box) as inner:
        gpurun("submit", str(job(WAIT)), "--host", address)
        run_id = gpurun.json("list")["runs"][0]["run_id"]
        wait_until(lambda: "begun" in (gpurun.box_run(run_id) / "log").read_text())
        pids = [owner(gpurun, run_id)["pid"], owner(gpurun, run_id)["payload"]["pid"]]
        inner.inside(
            f"kill -9 {pids[0]} {pids[1]}; while kill -0 {pids[0]} || kill -0 {pids[1]}; do sleep 0.05; done 2>&1"
        )
        recycle = "echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid; setsid sleep 1000 > /dev/null 2>&1 &"
        inner.inside(f"for pid in {pids[0]} {pids[1]}; do {recycle} done")
        running = inner.inside("ps -e -o pid=,args=")
        taken = [pid for pid in pids if re.search(rf"^\s*{pid} .*sleep 1000", running, re.MULTILINE)]
        assert taken == pids, running
        status = seen(gpurun)
        figure('false "dead" and false "alive"', int(status["phase"] != "finished"), 0)
        assert (status["outcome"], status["orphaned"]) == ("lost", False)
        gpurun("stop", run_id, "--grace", "0")
        assert inner.inside("ps -e -o pid=,args=").count("sleep 1000") == running.count("sleep 1000")


@pytest.mark.parametrize("days", [-1, pytest.param(1, marks=pytest.mark.slow)])
def test_37_a_clock_that_moves_by_a_day_is_no_death(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path, figure: Record, days: int
) -> None:
    run_id = begun(gpurun, job)
    # Every Python that the agent starts with from now on lives on another day, as after a clock was set.
    shim = tmp_path / "bin" / "python3"
    shim.parent.mkdir()
    moved = f"import time; now = time.time; time.time = lambda: now() + {days * 86400}; time.time_ns = lambda: int(time.time() * 1e9); "
    shim.write_text(
        f'#!/bin/sh\n[ "$3" = -c ] || exec {sys.executable} "$@"\na="$4"; shift 4; exec {sys.executable} -I -S -c "{moved}$a" "$@"\n'
    )
    shim.chmod(0o755)
    box.configure(PATH=f"{shim.parent}:/usr/local/bin:/usr/bin:/bin")
    for file in ("log", "owner.json", "events.jsonl", "exit.slot"):
        when = (gpurun.box_run(run_id) / file).stat().st_mtime - days * 86400
        os.utime(gpurun.box_run(run_id) / file, (when, when))
    status = seen(gpurun)
    figure('false "dead" and false "alive"', int((status["phase"], status["orphaned"]) != ("running", False)), 0)
    assert not status["stalled"]
    (box.home / "go").touch()
    assert gpurun("logs", "-f").stdout.endswith("done\n")
    assert seen(gpurun)["outcome"] == "succeeded"


@pytest.mark.slow
def test_38_a_stopped_payload_is_stalled_not_dead(gpurun: Gpurun, box: Box, job: Any, figure: Record) -> None:
    run_id = begun(gpurun, job)
    payload = owner(gpurun, run_id)["payload"]["pid"]
    kill(payload, signal.SIGSTOP)
    wait_until(lambda: (found := processes.read(payload)) is not None and found.state in "Tt")
    status = seen(gpurun)
    figure('false "dead" and false "alive"', int(status["phase"] != "running"), 0)
    assert status["stalled"] and "stalled" in gpurun("status").stdout
    kill(payload, signal.SIGCONT)
    (box.home / "go").touch()
    gpurun("logs", "-f")
    assert seen(gpurun)["outcome"] == "succeeded"


FULL = """
import os, signal, sys
print("begun", flush=True)
assert os.statvfs(".").f_blocks * os.statvfs(".").f_frsize < 1 << 30, "this is no small disk"
with open("filler", "wb", buffering=0) as filler:
    for size in (1 << 20, 4096, 1):
        try:
            while True:
                filler.write(b"x" * size)
        except OSError:
            pass
end = sys.argv[1]
if end.startswith("-"):
    os.kill(os.getpid(), int(end[1:]))
sys.exit(int(end))
"""
ENDS = [
    ("0", "exit", 0),
    ("1", "exit", 1),
    ("42", "exit", 42),
    ("255", "exit", 255),
    ("-9", "signal", 9),
    ("-11", "signal", 11),
]


@pytest.mark.slow
def test_39_the_exit_code_survives_a_full_disk(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path, figure: Record
) -> None:
    kept = 0
    with small_disk(tmp_path / "volume", "size=260m") as volume:
        for argument, kind, number in ENDS:
            file = job(FULL, command=["python3", "main.py", argument], outputs=[])
            run_id = gpurun.submit(file, "--volume", str(volume))
            gpurun("logs", run_id, "-f", check=None)
            status = seen(gpurun, run_id)
            kept += (status["exit"]["kind"], status["exit"]["number"]) == (kind, number)
            shutil.rmtree(volume / ".gpurun-box" / "runs" / run_id)
    figure("exit codes kept on a full disk", 100 * kept / len(ENDS), 100, "%", at_least=True)


def test_40_a_deleted_run_folder_is_lost_not_succeeded(gpurun: Gpurun, box: Box, job: Any, figure: Record) -> None:
    run_id = begun(gpurun, job)
    shutil.rmtree(gpurun.box_run(run_id))
    alive = seen(gpurun)
    figure('false "dead" and false "alive"', int(alive["phase"] != "running"), 0)
    (box.home / "go").touch()
    wait_until(lambda: not processes.by_cookie(processes.scan()).get(run_id))
    wait_until(lambda: seen(gpurun)["phase"] == "finished")
    assert (seen(gpurun)["outcome"], seen(gpurun)["cause"]) == ("lost", "folder_deleted")
    gpurun("logs", "-f", check=12)
    again = gpurun("submit", str(job(WAIT)), "--host", "local", "--run", run_id, check=12)
    assert "not started a second time" in again.stderr
