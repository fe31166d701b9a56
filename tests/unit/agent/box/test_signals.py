"""Signals that are waited for, and none that never came."""

import os
import signal
import subprocess
import sys
import time

from remote_payload.agent.box import processes
from tests.support.agent import wait_until

PROGRAM = """
import signal
from remote_payload.agent.box import signals
wanted = (signal.SIGUSR1, signal.SIGTERM)
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
print("ready", flush=True)
while True:
    print(signals.wait(wanted, 0.2), flush=True)
"""


def test_a_signal_is_told_and_a_stop_that_outlasts_the_wait_is_none():
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    for _ in range(5):
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: processes.read(child.pid).state == "T")
        time.sleep(0.3)  # the child's wait must be over when it goes on
        os.kill(child.pid, signal.SIGCONT)
        assert child.stdout.readline() == "None\n"
    os.kill(child.pid, signal.SIGUSR1)
    said = []
    wait_until(lambda: said.append(child.stdout.readline()) or said[-1] != "None\n")
    assert said[-1] == f"{int(signal.SIGUSR1)}\n"
    child.kill()
    child.communicate()
