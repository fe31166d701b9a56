"""Stopping through a real agent: nothing of the run is left, and nobody else is touched."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import volatile_folder
from runner.domain.errors import RunLost
from tests.support.agent import launch, log_of, run_id, running_agent, status, until_finished, wait_until

# Everything a training job can look like at once: TERM ignored, workers with sessions of their own, double forks, an
# environment without the cookie, and children born all the time. It prints the pids of what it starts.
TREE = r"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"]
print('main', os.getpid())
print('loader', subprocess.Popen(sleep).pid)                         # a data-loader worker
print('worker', subprocess.Popen(sleep, start_new_session=True).pid) # torchrun's worker
print('bare', subprocess.Popen(sleep, env={}, start_new_session=True).pid)  # no cookie, no session
sys.stdout.flush()
if os.fork() == 0:                                                   # double fork, no cookie, no session, no parent
    os.setsid()
    if os.fork() == 0:
        print('loose', os.getpid(), flush=True)
        os.execve(sys.executable, sleep, {})
    os._exit(0)
os.wait()
if os.fork() == 0:                                                   # gives birth while it is killed
    print('mother', os.getpid(), flush=True)
    while True:
        if os.fork() == 0:
            time.sleep(0.05)
            os._exit(0)
        time.sleep(0.005)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
time.sleep(300)
"""
STARTED = 6


@pytest.fixture
def decoy():
    """Somebody else's process of the same name, started at the same time."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    yield process
    assert process.poll() is None, "a stranger was killed"
    process.kill()
    process.wait()


def launch_tree(agent):
    """A run of TREE, and the processes it is made of as they told it themselves."""
    run = run_id()
    launch(agent, [sys.executable, "-c", TREE], run)
    wait_until(lambda: log_of(agent, run, until_end=False).count(b"\n") == STARTED)
    lines = log_of(agent, run, until_end=False).decode().splitlines()
    members = {name: processes.read(int(pid)) for name, pid in map(str.split, lines)}
    assert None not in members.values()
    return run, members


def alive(members):
    return [name for name, process in members.items() if processes.is_alive(process.pid, process.start)]


def test_a_tree_that_ignores_term_is_gone_after_the_grace(agent, decoy):
    run, members = launch_tree(agent)
    told = []
    answer = agent.call("stop", {"run_id": run, "grace": 1}, progress=told.append)
    assert answer["survivors"] == [] and alive(members) == []
    assert run not in processes.by_cookie(processes.scan())
    assert (answer["status"]["outcome"], answer["status"]["exit"]["kind"]) == ("cancelled", "cancelled")
    assert any("left" in each["line"] for each in told)


def test_an_orphaned_tree_is_ended_too(agent, paths, decoy):
    run, members = launch_tree(agent)
    os.kill(read_json(paths.run(run).owner)["pid"], signal.SIGKILL)
    wait_until(lambda: status(agent, run)["orphaned"])
    assert agent.call("stop", {"run_id": run, "grace": 0.5})["survivors"] == []
    assert alive(members) == []  # "loose" has given up cookie, session and parent at once
    assert status(agent, run)["outcome"] == "cancelled"


def test_a_payload_that_saves_on_term_is_given_the_time(agent):
    program = (
        "import signal,sys,time\n"
        "def save(*_): time.sleep(0.5); print('saved', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save); print('ready', flush=True); time.sleep(60)"
    )
    run = run_id()
    launch(agent, [sys.executable, "-c", program], run)
    wait_until(lambda: status(agent, run)["log_size"])
    answer = agent.call("stop", {"run_id": run, "grace": 20})
    assert answer["status"]["outcome"] == "cancelled" and answer["status"]["exit"]["number"] == 0
    assert log_of(agent, run) == b"ready\nsaved\n"


def test_a_shell_that_dies_at_once_does_not_take_the_grace_from_what_it_started(agent):
    inner = (
        "import signal,sys,time; signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)));"
        "print('ready', flush=True); time.sleep(60)"
    )
    run = run_id()
    launch(agent, ["sh", "-c", f'{sys.executable} -c "{inner}"; true'], run)
    wait_until(lambda: status(agent, run)["log_size"])
    agent.call("stop", {"run_id": run, "grace": 20})
    assert log_of(agent, run) == b"ready\nsaved\n"


def test_a_payload_that_is_stopped_by_a_signal_is_ended_all_the_same(agent):
    run = run_id()
    launch(agent, ["sleep", "60"], run)
    os.kill(status(agent, run)["pid"], signal.SIGSTOP)
    answer = agent.call("stop", {"run_id": run, "grace": 20})
    assert answer["survivors"] == [] and answer["status"]["outcome"] == "cancelled"


def test_a_supervisor_that_is_frozen_is_woken(agent, paths):
    run = run_id()
    launch(agent, ["sleep", "60"], run)
    os.kill(read_json(paths.run(run).owner)["pid"], signal.SIGSTOP)
    assert agent.call("stop", {"run_id": run, "grace": 1})["survivors"] == []
    assert until_finished(agent, run)["outcome"] == "cancelled"


def test_stopping_what_is_over_keeps_its_exit(agent):
    run = run_id()
    launch(agent, ["sh", "-c", "exit 3"], run)
    until_finished(agent, run)
    answer = agent.call("stop", {"run_id": run})
    assert (answer["status"]["outcome"], answer["status"]["exit"]["number"]) == ("failed", 3)


def test_a_stop_that_races_with_the_exit_says_one_or_the_other_and_never_loses_it(agent):
    outcomes = []
    for pause in ("0", "0.02", "0.04", "0.06", "0.08"):
        run = run_id()
        launch(agent, ["sh", "-c", f"sleep {pause}; exit 5"], run)
        status_seen = agent.call("stop", {"run_id": run, "grace": 5})["status"]
        outcomes.append((status_seen["outcome"], status_seen["exit"]["number"]))
    assert set(outcomes) <= {("failed", 5), ("cancelled", 143), ("cancelled", 5)}


def test_two_who_stop_at_once_agree(home):
    run = run_id()
    answers = []

    def stopper():
        with running_agent(home) as agent:
            answers.append(agent.call("stop", {"run_id": run, "grace": 1}))

    with running_agent(home) as agent:
        launch(agent, ["sleep", "60"], run)
    stoppers = [threading.Thread(target=stopper) for _ in range(2)]
    for each in stoppers:
        each.start()
    for each in stoppers:
        each.join()
    assert [answer["survivors"] for answer in answers] == [[], []]
    assert {answer["status"]["outcome"] for answer in answers} == {"cancelled"}


def test_stop_goes_on_when_the_laptop_is_gone(home):
    run = run_id()
    ignoring = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    with running_agent(home) as agent:
        launch(agent, [sys.executable, "-c", ignoring], run)
        wait_until(lambda: status(agent, run)["log_size"])
        for _ in agent.stream("stop", {"run_id": run, "grace": 1}):
            break  # the connection ends while the grace is running
    with running_agent(home) as agent:
        wait_until(lambda: status(agent, run)["outcome"] == "cancelled")


def test_a_run_that_nobody_knows_cannot_be_stopped(agent):
    with pytest.raises(RunLost, match="knows no run"):
        agent.call("stop", {"run_id": run_id()})


ENDS_SLOWLY = r"""
import os, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(2)"
subprocess.Popen([sys.executable, "-c", child])
while not os.path.exists("go"):
    time.sleep(0.02)
"""


def test_an_exit_that_the_supervisor_told_while_stop_waited_is_kept_though_its_slot_was_damaged(agent, paths):
    run = run_id()
    launch(agent, [sys.executable, "-c", ENDS_SLOWLY], run)
    wait_until(lambda: b"ready" in log_of(agent, run, until_end=False))
    folder = paths.run(run)
    main = read_json(folder.owner)["payload"]
    os.unlink(folder.exit_slot)
    os.makedirs(os.path.join(folder.exit_slot, "full"))  # an empty folder would be replaced
    open(os.path.join(folder.code, "go"), "w").close()
    copy = os.path.join(volatile_folder(run), "exit")  # where the exit is told when the slot does not take it
    wait_until(lambda: os.path.exists(copy))
    os.unlink(copy)
    assert processes.is_alive(main["pid"], main["start"]) is None
    assert status(agent, run)["phase"] == "running"  # a child is still there
    answer = agent.call("stop", {"run_id": run, "grace": 1})
    assert answer["survivors"] == []
    assert (answer["status"]["outcome"], answer["status"]["exit"]["number"]) == ("succeeded", 0)


SLOW_TO_SAVE = (
    "import json,os,signal,sys,time\n"
    "open(os.environ['GPURUN_RUN_DIR'] + '/grace.json', 'w').write(sys.argv[1])\n"
    "def save(*_): time.sleep(1.5); print('saved', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, save); print('ready', flush=True); time.sleep(60)"
)


def test_a_run_that_needs_long_to_save_is_given_the_time_and_the_user_is_told(agent):
    run, told = run_id(), []
    launch(agent, [sys.executable, "-c", SLOW_TO_SAVE, '{"seconds": 900}'], run)
    wait_until(lambda: status(agent, run)["log_size"])
    answer = agent.call("stop", {"run_id": run}, progress=told.append)
    assert answer["status"]["exit"]["number"] == 0 and log_of(agent, run) == b"ready\nsaved\n"
    assert any(re.search("1 process left, up to (900|89.) s to save and end", each["line"]) for each in told), told


def test_a_grace_that_was_asked_for_is_the_grace_whatever_the_run_says(agent):
    run = run_id()
    launch(agent, [sys.executable, "-c", SLOW_TO_SAVE, '{"seconds": 900}'], run)
    wait_until(lambda: status(agent, run)["log_size"])
    answer = agent.call("stop", {"run_id": run, "grace": 0.2})
    assert answer["survivors"] == [] and log_of(agent, run) == b"ready\n"


def test_an_orphan_is_given_the_time_too(agent, paths):
    run, told = run_id(), []
    launch(agent, [sys.executable, "-c", SLOW_TO_SAVE, '{"seconds": 900}'], run)
    wait_until(lambda: status(agent, run)["log_size"])
    os.kill(read_json(paths.run(run).owner)["pid"], signal.SIGKILL)
    wait_until(lambda: status(agent, run)["orphaned"])
    assert agent.call("stop", {"run_id": run}, progress=told.append)["survivors"] == []
    assert b"saved" in log_of(agent, run) and any("to save and end" in each["line"] for each in told)
