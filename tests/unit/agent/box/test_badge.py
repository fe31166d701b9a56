"""Real processes: a badge is what the kernel keeps of them."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_payload.agent.box import badge, processes
from remote_payload.agent.run import alive
from remote_payload.agent.wire.paths import BoxPaths
from tests.support.agent import FROM_SOURCE, run_id, wait_until

SLEEP = [sys.executable, "-S", "-c", "import sys, time; sys.stdout.write('.'); sys.stdout.flush(); time.sleep(60)"]
# Everything by which a program may hide from whoever started it, at once; at the end it says which pid it has.
HIDE = r"""
import os, sys
told, devnull = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), os.open(os.devnull, os.O_RDWR)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.write(told, b"%d\n" % os.getpid())
for descriptor in range(3):
    os.dup2(devnull, descriptor)
os.closerange(3, 256)
os.execve(sys.executable, ["nobody", "-S", "-c", "import time; time.sleep(60)"], {})
"""


@pytest.fixture
def box(tmp_path):
    return BoxPaths(str(tmp_path / "root"))


@pytest.fixture
def start():
    """Starts a process in a session of its own, as a payload is, with the badge of a run or none; all end with the test."""
    started = []

    def start(command, owner=None):
        process = subprocess.Popen(
            command,
            preexec_fn=(lambda: badge.set_badge(owner)) if owner else None,
            stdin=subprocess.PIPE,  # an agent ends with it
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def found(box, run):
    return [process.pid for process in alive.find(box.run(run))]


def pid_in(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_a_process_that_gave_up_every_other_sign_is_found_and_is_nobody_elses(box, start, tmp_path):
    mine, other = run_id(), run_id()
    start([sys.executable, "-S", "-c", HIDE, str(tmp_path / "pid")], mine).wait(10)
    hidden = pid_in(tmp_path / "pid")
    try:
        wait_until(lambda: processes.command(hidden).startswith("nobody"))
        assert processes.cookie(hidden) is None and alive.run_of(hidden) is None
        assert found(box, mine) == [hidden] and found(box, other) == []
        assert alive.of(box.run(mine)).anything and not alive.of(box.run(other)).anything
    finally:
        os.kill(hidden, signal.SIGKILL)
    wait_until(lambda: not alive.of(box.run(mine)).anything)


def test_a_process_without_a_badge_belongs_to_no_run(start):
    stranger = start(SLEEP)
    assert stranger.stdout.read(1) == b"."
    assert badge.read(stranger.pid) is None and badge.read(os.getpid()) is None
    assert badge.read(1 << 22) is None  # nobody has this pid


def test_the_hard_limit_stays_and_another_run_may_change_the_badge(start):
    first, second = run_id(), run_id()
    before = resource.getrlimit(badge.LOCKS)
    source = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[4])!r}); import resource\n"
        "from remote_payload.agent.box import badge\n"
        "import os\n"
        "if os.getuid() == 0: os.setuid(65534)\n"  # without any privilege
        f"badge.set_badge({second!r}); assert badge.read(os.getpid()) == badge.of({second!r})\n"
        "badge.remove_badge(); print(*resource.getrlimit(badge.LOCKS))"
    )
    said = start([sys.executable, "-S", "-c", source], first).stdout.read().split()
    assert list(map(int, said)) == [before[1], before[1]]


def test_where_no_badge_can_be_put_on_the_payload_starts_all_the_same(start):
    source = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[4])!r}); import os, resource\n"
        "from remote_payload.agent.box import badge\n"
        "resource.setrlimit(badge.LOCKS, (1000, 1000))\n"
        "badge.set_badge('legal-20260102-142030-57a1'); badge.remove_badge()\n"
        "print(badge.read(os.getpid()), *resource.getrlimit(badge.LOCKS))"
    )
    assert start([sys.executable, "-S", "-c", source]).stdout.read().split() == [b"None", b"1000", b"1000"]


def test_where_the_kernel_does_not_let_us_ask_the_badge_is_read_from_proc(start, monkeypatch):
    mine = run_id()
    process = start(SLEEP, mine)
    assert process.stdout.read(1) == b"."

    def refused(pid, limit):
        raise PermissionError

    monkeypatch.setattr(resource, "prlimit", refused)
    assert badge.read(process.pid) == badge.of(mine)
    assert badge.read(os.getpid()) is None and badge.read(process.pid, "/no/such") is None


def test_a_login_server_that_a_payload_restarted_and_who_logs_in_there_are_nobodys(box, start, tmp_path):
    mine, server = run_id(), tmp_path / "sshd"
    shutil.copy(shutil.which("bash"), server)
    login = start([str(server), "-c", "sleep 60 & echo $!; wait"], mine)
    session = int(login.stdout.readline())
    assert badge.read(login.pid) == badge.read(session) == badge.of(mine)
    assert found(box, mine) == []
    own = start(SLEEP, mine)
    os.kill(session, signal.SIGKILL)
    assert own.stdout.read(1) == b"."
    assert found(box, mine) == [own.pid]


def test_an_agent_that_was_reached_through_such_a_server_takes_the_badge_off(start, tmp_path):
    agent = start([*FROM_SOURCE, "serve", "0" * 32, str(tmp_path / "root")], run_id())
    assert agent.stdout.read(1)
    assert processes.is_agent(agent.pid) and badge.read(agent.pid) is None


def test_badges_of_two_runs_are_not_alike_and_lie_beyond_all_real_limits():
    ids = {f"legal-20260102-142030-{number:04x}" for number in range(1 << 12)}
    numbers = {badge.of(each) for each in ids}
    assert len(numbers) == len(ids)
    assert all(1 << 62 <= each < 1 << 63 for each in numbers)
