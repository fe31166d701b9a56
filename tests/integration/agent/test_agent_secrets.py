"""Secrets: where they are while a run lasts, and that they are nowhere afterwards."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import volatile_folder
from runner.domain.errors import GpurunError, LaunchError
from tests.support.agent import launch, log_of, run_id, running_agent, status, wait_until

SHOW = "import json,os; print(json.dumps({'env': dict(os.environ)}))"


def test_secrets_live_where_they_are_needed_and_nowhere_once_the_run_is_over(agent, paths, home):
    run, token, other = run_id(), "hf_" + "Q7" * 17, "canary-" + os.urandom(8).hex()
    program = (
        "import os; path = os.environ['HF_TOKEN_PATH'];"
        "print(oct(os.stat(path).st_mode), len(open(path).read()), len(os.environ['WANDB_API_KEY']))"
    )
    wait = "; import sys; sys.stdin.read(); import time; time.sleep(30)"
    launch(agent, [sys.executable, "-c", program + wait], run, secrets={"HF_TOKEN": token, "WANDB_API_KEY": other})
    path = os.path.join(volatile_folder(run), "hf_token")
    wait_until(lambda: status(agent, run)["log_size"])
    assert os.stat(path).st_mode & 0o777 == 0o600
    payload = status(agent, run)["pid"]
    for pid in processes.scan():
        seen = processes.command(pid)
        assert token not in seen and other not in seen
        if pid != payload and pid != os.getpid():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            assert token.encode() not in environment and other.encode() not in environment
    with pytest.raises(LaunchError, match="still going"):
        agent.call("wipe", {"run_id": run})
    agent.call("stop", {"run_id": run, "grace": 1})
    wait_until(lambda: not os.path.exists(volatile_folder(run)))
    assert agent.call("wipe", {"run_id": run}) == {"left": []}
    found = subprocess.run(["grep", "-rlE", f"{token}|{other}", str(home)], capture_output=True).stdout
    assert found == b""
    assert log_of(agent, run).startswith(f"0o100600 {len(token)} {len(other)}".encode())


def test_a_token_of_the_box_itself_does_not_win_over_the_one_that_was_sent(home):
    run = run_id()
    with running_agent(home, HF_TOKEN="hf_theboxes") as agent:
        launch(agent, [sys.executable, "-c", SHOW], run, secrets={"HF_TOKEN": "hf_mine"})
        assert "HF_TOKEN" not in json.loads(log_of(agent, run))["env"]


def test_secrets_of_a_killed_supervisor_are_swept_by_the_next_agent(home, paths):
    run = run_id()
    with running_agent(home) as agent:
        launch(agent, ["sleep", "60"], run, secrets={"HF_TOKEN": "hf_" + "a" * 20})
        owner = read_json(paths.run(run).owner)
        os.kill(owner["pid"], signal.SIGKILL)
        os.kill(owner["payload"]["pid"], signal.SIGKILL)
        wait_until(lambda: status(agent, run)["outcome"] == "lost")
    assert os.path.exists(volatile_folder(run) + "/hf_token")
    with running_agent(home):
        wait_until(lambda: not os.path.exists(volatile_folder(run)))


def test_a_failed_launch_leaves_no_secret(agent, paths):
    run = run_id()
    with pytest.raises(GpurunError) as caught:
        launch(
            agent,
            ["true"],
            run,
            secrets={"HF_TOKEN": "hf_" + "b" * 20},
            time_limit="hf_" + "b" * 20,
            variables=["hf_" + "b" * 20],
        )
    assert "hf_bbb" not in caught.value.message
    assert not os.path.exists(volatile_folder(run))
