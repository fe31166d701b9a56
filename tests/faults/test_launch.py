"""Whatever is cut off or killed, a run starts at most once, and the truth can be had."""

import json
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.wire.paths import BoxPaths
from runner.domain.errors import GpurunError
from runner.transport.session import AgentSession
from tests.support.agent import end_agent, launch, running_agent, start_agent, wait_until
from tests.support.box import Box
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.proxy import Proxy

# Each start of the payload is one line of a file that no run owns.
COUNTING = """
import os, time
with open(os.path.expanduser("~/starts"), "a") as starts:
    starts.write(os.environ["GPURUN_RUN_ID"] + "\\n")
while not os.path.exists(os.path.expanduser("~/go")):
    time.sleep(0.05)
"""


def starts(box: Box) -> list[str]:
    """The runs that were started, once for each start."""
    file = box.home / "starts"
    return file.read_text().split() if file.exists() else []


def release(box: Box) -> None:
    (box.home / "go").touch()


def test_25_an_answer_that_is_cut_off_is_asked_for_again_and_the_run_starts_once(
    gpurun: Gpurun, box: Box, job: Any
) -> None:
    with Proxy(box.port) as link:
        submitting = gpurun.start("submit", str(job(COUNTING)), "--host", box.address(link.port))
        wait_until(lambda: list(box.root.glob("runs/*")), every=0.001)
        link.freeze("to client")  # the box starts the run; nobody hears of it
        wait_until(lambda: list(box.root.glob("runs/*/owner.json")) and starts(box))
        link.cut()
        link.thaw()
        _, said = submitting.communicate(timeout=60)
    assert submitting.returncode == 0, said
    assert "trying again" in said and "attached" in said
    assert gpurun.json("status")["status"]["phase"] == "running"
    assert len(starts(box)) == 1 and len(list((box.root / "runs").iterdir())) == 1
    release(box)


def test_a_resume_whose_answer_is_cut_off_goes_on_and_starts_one_run(gpurun: Gpurun, box: Box, job: Any) -> None:
    with Proxy(box.port) as link:
        release(box)
        gpurun("submit", str(job(COUNTING)), "--host", box.address(link.port))
        gpurun("logs", "-f")
        (box.home / "go").unlink()
        resuming = gpurun.start("resume")
        wait_until(lambda: len(list(box.root.glob("runs/*"))) == 2, every=0.001)
        link.freeze("to client")
        wait_until(lambda: len(list(box.root.glob("runs/*/owner.json"))) == 2 and len(starts(box)) == 2)
        link.cut()
        link.thaw()
        _, stderr = resuming.communicate(timeout=60)
    assert resuming.returncode == 0, stderr
    assert "trying again" in stderr and "attached" in stderr
    first, second = (run["run_id"] for run in gpurun.json("list")["runs"])
    assert starts(box) == [first, second] and gpurun.json("status")["parent"] == first
    release(box)


KILL_POINTS = [
    "runner.workflow.submission.plan:make_plan:before",
    "runner.store:create:before",
    "runner.store:create:after",
    "runner.workflow.connect:connect:before",
    "runner.workflow.connect:note_reached:after",
    "runner.workflow.submission.checks:probe:before",
    "runner.workflow.submission.checks:probe:after",
    "runner.workflow.submission.environment:provision:in",
    "runner.transport.transfer.rsync:push:before",
    "runner.transport.transfer.rsync:push:in",
    "runner.transport.transfer.rsync:push:after",
    "runner.workflow.submission.stale:clear:after",
    "runner.workflow.submission.launch:launch:before",
    "runner.workflow.submission.launch:launch:in",
    "runner.workflow.submission.launch:remember_status:before",
    "runner.workflow.submission.launch:launch:after",
    "runner.workflow.submission.launch:confirm_start:before",
    "runner.workflow.submission.launch:confirm_start:after",
]
QUICK = {KILL_POINTS[9], KILL_POINTS[14]}


@pytest.mark.parametrize(
    "point", [point if point in QUICK else pytest.param(point, marks=pytest.mark.slow) for point in KILL_POINTS]
)
def test_26_a_client_killed_at_any_step_starts_at_most_one_run_and_can_go_on(
    gpurun: Gpurun, box: Box, job: Any, point: str
) -> None:
    file = str(job(COUNTING))
    argv = [sys.executable, "-m", "tests.support.killed_at", point, "--", "submit", file, "--host", "local"]
    killed = subprocess.run(argv, env=gpurun.environment(), capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    known = [line["run_id"] for line in gpurun.json("list")["runs"]]
    if not known:  # before the record: nothing was contacted, and nothing can be there
        assert not (box.root / "runs").exists()
        return
    (run_id,) = known
    gpurun("status", run_id)
    gpurun("submit", file, "--host", "local", "--run", run_id)
    wait_until(lambda: starts(box))
    assert gpurun.json("status", run_id)["status"]["phase"] == "running"
    assert starts(box) == [run_id]
    assert [run.name for run in (box.root / "runs").iterdir()] == [run_id]
    gpurun("submit", file, "--host", "local", "--run", run_id)
    assert starts(box) == [run_id]
    release(box)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_27_twenty_clients_with_one_run_id_start_one_run(gpurun: Gpurun, box: Box, job: Any) -> None:
    file = str(job(COUNTING))
    point = ["-m", "tests.support.killed_at", "runner.store:create:after", "--"]
    subprocess.run([sys.executable, *point, "submit", file, "--host", "local"], env=gpurun.environment(), timeout=60)
    run_id = gpurun.json("list")["runs"][0]["run_id"]
    clients = [gpurun.start("submit", file, "--host", "local", "--run", run_id) for _ in range(20)]
    said = [client.communicate(timeout=240)[1] for client in clients]
    assert not [text for client, text in zip(clients, said, strict=True) if client.returncode]
    assert sum("attached" in each for each in said) == 19
    wait_until(lambda: starts(box))
    assert starts(box) == [run_id]
    release(box)


@pytest.mark.stand_in
def test_28_the_second_run_on_a_gpu_is_told_who_has_it(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "nvidia-smi"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\necho "0, GPU-7b7, NVIDIA Stand-In, 24576, 0, 0"\n')
    shim.chmod(0o755)
    box.configure(PATH=f"{shim.parent}:/usr/local/bin:/usr/bin:/bin")
    file = str(job(COUNTING, resources={"gpus": 1}))
    first = gpurun.submit(file)
    refused = gpurun("submit", file, "--host", "local", check=5)
    assert first in refused.stderr and f"gpurun stop {first}" in refused.stderr
    wait_until(lambda: starts(box))
    assert starts(box) == [first]
    release(box)
    gpurun("logs", first, "-f")
    gpurun.submit(file)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["no-such-program"], 3, "the box has no no-such-program in its PATH"),
        (["./missing.sh"], 2, "there is no './missing.sh'"),
        (["./job.yaml"], 2, "not executable"),
    ],
)
def test_29_a_command_that_cannot_start_is_refused_before_the_push(
    gpurun: Gpurun, job: Any, command: list[str], code: int, said: str
) -> None:
    refused = gpurun("submit", str(job("", command=command)), "--host", "local", check=code)
    assert said in refused.stderr and "push" not in refused.stderr.replace("pushed", "")


@pytest.mark.parametrize(
    ("first_line", "number", "said"),
    [("#!/no/such/program", 127, "is not on the box"), ("no script", 126, "neither a program")],
)
def test_29_a_command_that_only_the_box_can_refuse_ends_the_submission_with_the_reason(
    gpurun: Gpurun, job: Any, first_line: str, number: int, said: str
) -> None:
    file = job("", command=["./tool"])
    (file.parent / "tool").write_text(first_line + "\n")
    (file.parent / "tool").chmod(0o755)
    refused = gpurun("submit", str(file), "--host", "local", check=10)
    assert said in refused.stderr
    assert said in gpurun("logs", "-f", check=10).stdout
    assert gpurun.json("status")["status"]["exit"]["number"] == number


def test_a_command_that_fails_at_once_ends_a_resume_with_the_reason_too(gpurun: Gpurun, job: Any) -> None:
    file = str(job("", command=["bash", "-c", "exit 3"]))
    gpurun("submit", file, "--host", "local", check=None)
    gpurun("logs", "-f", check=10)
    resumed = gpurun("resume", check=None)
    if "is over" in resumed.stderr:  # else the box had confirmed the start before the program ended
        assert resumed.returncode == 10 and "failed (exit 3)" in resumed.stderr and " runs on " not in resumed.stderr
    first, second = (run["run_id"] for run in gpurun.json("list")["runs"])
    gpurun("logs", second, "-f", check=10)
    assert f"going on from {first}" in resumed.stderr


@pytest.mark.parametrize("name", ["nosuch", "../x", "", "probe-20261121-145815-0000"])
def test_going_on_with_a_run_that_nobody_knows_is_an_error_of_the_arguments(
    gpurun: Gpurun, job: Any, name: str
) -> None:
    refused = gpurun("submit", str(job("")), "--host", "local", "--run", name, check=2)
    assert f"this machine knows no run {name!r}" in refused.stderr


HOSTILE = [
    "$(touch ~/owned)",
    "`touch ~/owned`",
    "a'b\"c",
    "new\nline",
    "; touch ~/owned",
    "-rf",
    "*",
    "\\",
    "ünï 日本",
    "\x1b[31m",
]


def test_30_words_and_variables_of_a_job_arrive_literally(gpurun: Gpurun, box: Box, job: Any) -> None:
    show = "import json, os, sys\nprint(json.dumps([sys.argv[1:], {k: os.environ[k] for k in os.environ if k[:2] == 'V_'}]))"
    variables = {f"V_{number}": word for number, word in enumerate(HOSTILE)}
    gpurun.submit(job(show, command=["python3", "main.py", *HOSTILE], environment={"variables": variables}))
    argv, found = json.loads(gpurun("logs", "-f").stdout)
    assert argv == HOSTILE and found == variables
    assert not (box.home / "owned").exists()


AGENTS, EACH = 100, 10


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_of_1000_launches_whose_answer_was_cut_off_none_starts_twice(tmp_path: Path, figure: Record) -> None:
    """Ten at a time, on a connection that ends at some moment of theirs; each is then asked for again, as the client does."""
    paths = BoxPaths(str(tmp_path / ".gpurun-box"))
    counter = tmp_path / "starts"
    counter.touch()
    dice = random.Random(4)
    attached, named = 0, 0

    def ask(session: AgentSession, run_id: str) -> dict[str, Any]:
        return launch(session, ["sh", "-c", f"echo {run_id} >> {counter}"], run_id)

    def ambiguous(session: AgentSession, run_id: str) -> None:
        try:
            ask(session, run_id)
        except GpurunError:
            pass

    with running_agent(tmp_path) as steady:
        for agent in range(AGENTS):
            run_ids = [f"ambiguous-20260102-142030-{agent * EACH + number:04x}" for number in range(EACH)]
            session, pipe = start_agent(tmp_path)
            cutting = threading.Timer(dice.random() * 0.8, pipe.process.kill if dice.random() < 0.5 else session.close)
            with ThreadPoolExecutor(EACH) as clients:
                cutting.start()
                list(clients.map(ambiguous, [session] * EACH, run_ids))
            for run_id in run_ids:
                try:
                    attached += bool(ask(steady, run_id)["attached"])
                except GpurunError as error:
                    assert error.message
                    named += 1
            cutting.cancel()
            end_agent(pipe)
        wait_until(lambda: all(run["phase"] == "finished" for run in steady.call("status", {})["runs"]))
        runs = steady.call("status", {})["runs"]
    lost = {run["run_id"] for run in runs if run["outcome"] == "lost"}
    launched = counter.read_text().split()
    others = [run for run in runs if run["run_id"] not in lost.union(launched)]
    assert attached > AGENTS and len(set(launched)) + len(lost) + named == AGENTS * EACH, others
    assert len(list(Path(paths.runs).iterdir())) + named == AGENTS * EACH
    figure('false "dead" and false "alive"', len(lost & set(launched)), 0)
    figure("double launches in 1,000 ambiguous acknowledgements", len(launched) - len(set(launched)), 0)


def test_a_run_whose_start_was_asked_for_on_one_box_is_not_started_on_another(gpurun: Gpurun, job: Any) -> None:
    file = job("print(1)")
    run_id = gpurun.submit(file)
    record = gpurun.home / "runs" / run_id / "run.json"
    heard = json.loads(record.read_text())
    record.write_text(json.dumps({**heard, "launched": False}))  # the confirmation was lost
    refused = gpurun("submit", str(file), "--host", "root@192.0.2.1", "--run", run_id, check=2)
    assert "may be on local" in refused.stderr and "two boxes" in refused.stderr
    assert json.loads(record.read_text())["host"] == "local"
