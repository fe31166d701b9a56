"""What scripts and coding agents ask of a run, over a real sshd: waiting for a moment of it, a command beside it."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import subprocess
from pathlib import Path
from typing import Any

from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun
from tests.support.proxy import Proxy

# Goes on at each file that the test makes: a checkpoint, then the end with exit code 3.
IN_STEPS = """
import pathlib, sys, time
def until(name):
    while not pathlib.Path("/proc/self/cwd", name).exists():
        time.sleep(0.02)
print("begun", flush=True)
until("go")
folder = pathlib.Path("models/save-5")
folder.mkdir(parents=True)
(folder / "state.bin").write_bytes(b"weights")
(folder / "DONE").write_text("")
until("end")
sys.exit(3)
"""
CHECKPOINTS = {"pattern": "models/save-*", "complete_when": "DONE"}


def let(gpurun: Gpurun, run_id: str, name: str) -> None:
    (gpurun.box_run(run_id) / "code" / name).touch()


def test_wait_ends_at_each_moment_of_a_run_through_links_that_are_cut(gpurun: Gpurun, box: Box, job: Any) -> None:
    file = job(IN_STEPS, checkpoints=CHECKPOINTS)
    with Proxy(box.port) as link:
        run_id = gpurun.json("submit", str(file), "--host", box.address(link.port))["runs"][0]["run_id"]
        assert gpurun.json("wait", "--for", "started")["status"]["phase"] == "running"

        up = gpurun.json("wait", "--for", "checkpoint", "--timeout", "1s", check=124)
        assert up["error"]["kind"] == "StillGoing" and "running" in up["error"]["message"]
        waiting = gpurun.start("wait", "probe", "--for", "checkpoint", "--json")
        seen = link.trace.connections
        wait_until(lambda: link.trace.connections > seen)
        let(gpurun, run_id, "go")
        out, err = waiting.communicate(timeout=120)
        assert waiting.returncode == 0, err
        assert json.loads(out)["status"]["phase"] == "running"
        assert gpurun("wait", "--for", "checkpoint").stdout == f"{run_id}: running\n"  # it was there before

        waiting = gpurun.start("wait", "--json")
        for cut in range(3):
            seen = link.trace.connections
            wait_until(lambda seen=seen: link.trace.connections > seen)  # it has connected, or connected again
            link.cut("reset" if cut % 2 else "close")
        let(gpurun, run_id, "end")
        out, err = waiting.communicate(timeout=240)
        assert waiting.returncode == 10, err
        ended = json.loads(out)
        assert ended["status"]["outcome"] == "failed" and ended["status"]["exit"]["number"] == 3
    assert (
        "why" not in gpurun("wait", check=10).stdout
    )  # the box is not asked about a run that is over: the link is gone


def test_wait_goes_on_with_the_run_that_resumes_it(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job("import time\ntime.sleep(600)"))
    gpurun("stop", run_id, "--grace", "0")
    (Path(gpurun.home).parent / "project-probe" / "main.py").write_text("print('the rest')")
    second = gpurun.json("resume", run_id)["run_id"]
    assert gpurun.json("wait", run_id)["run_id"] == second


HARD = [
    "'",
    '"',
    "$(id)",
    "`id`",
    "\\",
    "!",
    "*",
    "~",
    " ",
    "\n",
    "\t",
    ";",
    "&",
    "|",
    "#",
    "é",
    "漢",
    "-",
    "--json",
    "{}",
    "%",
    "<",
    "x",
    "7",
]
ECHO = """
import json, os, sys
given = {"argv": sys.argv[1:], "cwd": os.getcwd(), "stdin": sys.stdin.read(), "environment": dict(os.environ)}
print(json.dumps(given))
print("said", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def test_a_command_beside_a_run_gets_its_words_folder_and_variables_and_gives_its_exit_code(
    gpurun: Gpurun, job: Any
) -> None:
    chance = random.Random(os.environ.get("GPURUN_SEED", "14"))
    run_id = gpurun.submit(job("import time\ntime.sleep(600)", environment={"variables": {"COLOUR": "blue green"}}))
    (gpurun.box_run(run_id) / "code" / "echo.py").write_text(ECHO)
    for _ in range(3):
        code = chance.choice((0, 1, 2, 97, 126, 127, 254))
        words = ["".join(chance.choices(HARD, k=chance.randrange(6))) for _ in range(chance.randrange(1, 8))]
        argv = gpurun.argv("exec", "probe", "--", "python3", "echo.py", str(code), *words)
        done = subprocess.run(argv, env=gpurun.environment(), input="a\nb", capture_output=True, text=True, timeout=120)
        assert done.returncode == code and done.stderr == "said\n", done.stderr
        given = json.loads(done.stdout)
        assert given["argv"] == [str(code), *words] and given["stdin"] == "a\nb"
        assert given["cwd"] == str((gpurun.box_run(run_id) / "code").resolve())
        assert given["environment"]["COLOUR"] == "blue green" and given["environment"]["CUDA_VISIBLE_DEVICES"] == ""
        assert not {"GPURUN_RUN_ID", "GPURUN_EVENTS", "SSH_CONNECTION"} & set(given["environment"])

    kept = json.loads(
        gpurun("exec", run_id, "--json", "--", "bash", "-c", "echo out; echo err >&2; exit 3", check=3).stdout
    )
    assert (kept["run_id"], kept["stdout"], kept["stderr"], kept["exit_code"]) == (run_id, "out\n", "err\n", 3)
    missing = gpurun("exec", "--", "no-such-program", check=127)
    assert "gpurun: cannot start 'no-such-program': not found in PATH" in missing.stderr

    beside = gpurun.start("exec", "--", "sleep", "600")
    wait_until(lambda: "sleep 600" in gpurun("exec", "--", "ps", "-eo", "args").stdout)
    gpurun("stop", run_id, "--grace", "0")  # it is no process of the run: stop does not look for it
    assert beside.poll() is None
    beside.kill()
    beside.wait()


def test_a_shell_opens_in_the_folder_of_a_run_and_needs_a_terminal(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job("print('x')", environment={"variables": {"COLOUR": "blue"}}))
    gpurun("wait", run_id)
    assert "gpurun exec RUN -- COMMAND" in gpurun("ssh", check=2).stderr
    shown = gpurun.json("ssh", run_id)
    assert shown["run_id"] == run_id and shown["command"][:2] == ["ssh", "-F"]
    ours, theirs = pty.openpty()
    environment = {**gpurun.environment(), "SHELL": "/bin/sh", "PS1": "> "}
    shell = subprocess.Popen(gpurun.argv("ssh", run_id), env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"echo $((6 * 7)) $COLOUR $(basename $(dirname $(pwd))); exit 9\n")
    said = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            said += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    assert f"42 blue {run_id}" in said.decode() and shell.wait(60) == 9, said
    os.close(ours)
