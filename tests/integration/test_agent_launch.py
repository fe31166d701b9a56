"""Launching through a real agent: once, literally, with what the payload was promised."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from remote_payload.agent import locks, processes
from remote_payload.agent.files import read_json
from remote_payload.agent.paths import BoxPaths, volatile_folder
from runner.domain.errors import BoxNotReady, GpuBusy, GpurunError, LaunchError, TransferInterrupted
from tests.support.agent import launch, log_of, run_id, running_agent, status, until_finished, wait_until

SHOW = "import json,os,sys; print(json.dumps({'argv': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd()}))"


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def agent(home):
    with running_agent(home) as session:
        yield session


@pytest.fixture
def paths(home):
    return BoxPaths(str(home / ".gpurun-box"))


def shown(agent, run):
    return json.loads(log_of(agent, run))


@pytest.mark.parametrize(
    ("command", "kind", "number", "outcome", "cause"),
    [
        (["true"], "exit", 0, "succeeded", None),
        (["sh", "-c", "exit 42"], "exit", 42, "failed", "exit 42"),
        (["sh", "-c", "kill -9 $$"], "signal", 9, "failed", "signal 9"),
        (["sh", "-c", "kill -SEGV $$"], "signal", 11, "failed", "signal 11"),
        (["no-such-program"], "exit", 127, "failed", "exit 127"),
        (["./missing.sh"], "exit", 127, "failed", "exit 127"),
        (["/etc/passwd"], "exit", 126, "failed", "exit 126"),
        (["/"], "exit", 126, "failed", "exit 126"),
    ],
)
def test_how_the_payload_ends_is_what_the_box_says(agent, command, kind, number, outcome, cause):
    run = run_id()
    answer = launch(agent, command, run)
    assert answer["attached"] is False
    final = until_finished(agent, run)
    assert (final["exit"]["kind"], final["exit"]["number"]) == (kind, number)
    assert (final["phase"], final["outcome"], final["cause"]) == ("finished", outcome, cause)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["no-such-program"], b"not found in PATH"),
        (["./missing.sh"], b"no such file in the code"),
        (["/etc/passwd"], b"not executable"),
    ],
)
def test_a_program_that_cannot_be_executed_says_why_in_the_log(agent, command, says):
    run = run_id()
    launch(agent, command, run)
    assert says in log_of(agent, run)
    assert says.decode() in status(agent, run)["evidence"]


def test_arguments_and_variables_arrive_byte_for_byte(agent):
    words = ["$(touch owned)", "`id`", "a'b\"c", "new\nline", "; exit 1", "-rf", "", "ünï", "*", "{gpus}", "a{gpus}b"]
    variables = {"PLAIN": "$(id)", "QUOTES": "a'b\"c\nd", "EMPTY": ""}
    run = run_id()
    launch(agent, [sys.executable, "-c", SHOW, *words], run, variables=variables, processes=2)
    told = shown(agent, run)
    assert told["argv"] == [word.replace("{gpus}", "2") for word in words]
    assert {name: told["env"][name] for name in variables} == variables


def test_the_payload_meets_what_it_was_promised(agent, paths, home):
    run = run_id()
    launch(agent, [sys.executable, "-c", SHOW], run, interpreter="/venv/main/bin/python", payload="a" * 64)
    told = shown(agent, run)
    folder = paths.run(run).folder
    assert told["cwd"] == os.path.realpath(paths.run(run).code)
    expected = {
        "GPURUN_RUN_ID": run,
        "GPURUN_RUN_DIR": folder,
        "GPURUN_OUTPUTS": folder + "/outputs",
        "GPURUN_EVENTS": folder + "/events.jsonl",
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HOME": paths.hf_home,
        "PYTHONUNBUFFERED": "1",
    }
    assert {name: told["env"].get(name) for name in expected} == expected
    assert told["env"]["PATH"].startswith("/venv/main/bin:")
    assert told["env"]["PYTHONPATH"].startswith(paths.payload("a" * 64))
    assert "GPURUN_RESUME" not in told["env"]
    assert not [name for name in told["env"] if name.startswith("SSH_")]


def test_only_its_own_descriptors_reach_the_payload(agent):
    run = run_id()
    launch(agent, ["ls", "-l", "/proc/self/fd"], run)
    targets = [line.partition(" -> ")[2] for line in log_of(agent, run).decode().splitlines() if " -> " in line]
    assert [target.rpartition("/")[2] for target in targets[:3]] == ["null", "log", "log"]
    assert len(targets) == 4 and "/fd" in targets[3]  # ls's own


def test_a_second_launch_attaches_whatever_became_of_the_first(agent):
    run = run_id()
    launch(agent, ["sleep", "30"], run)
    again = launch(agent, ["sh", "-c", "echo never"], run)
    assert again["attached"] is True and again["status"]["phase"] == "running"
    agent.call("stop", {"run_id": run, "grace": 1})
    once_more = launch(agent, ["sh", "-c", "echo never"], run)
    assert once_more["attached"] is True and once_more["status"]["outcome"] == "cancelled"
    assert b"never" not in log_of(agent, run)


def test_twenty_clients_with_one_run_id_start_it_once(home, paths):
    run = run_id()
    answers, failures = [], []

    def client():
        try:
            with running_agent(home) as agent:
                answers.append(launch(agent, ["sh", "-c", "echo started; exec sleep 30"], run))
        except BaseException as error:
            failures.append(error)

    clients = [threading.Thread(target=client) for _ in range(20)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert not failures
    assert sorted(answer["attached"] for answer in answers) == [False] + [True] * 19
    assert {answer["status"]["phase"] for answer in answers} == {"running"}
    with open(paths.run(run).log, "rb") as log:
        assert log.read() == b"started\n"
    with running_agent(home) as agent:
        assert agent.call("stop", {"run_id": run, "grace": 1})["survivors"] == []


def test_the_run_does_not_notice_that_its_agent_is_killed(home):
    run = run_id()
    with running_agent(home) as agent:
        launch(agent, ["sh", "-c", "sleep 1; echo still here"], run)
    with running_agent(home) as agent:
        assert until_finished(agent, run)["outcome"] == "succeeded"
        assert log_of(agent, run) == b"still here\n"


def test_a_claim_whose_agent_died_is_never_started_again_and_says_so(agent, paths):
    run = run_id()
    os.makedirs(paths.run(run).folder)
    answer = launch(agent, ["true"], run)
    assert answer["attached"] is True
    assert (answer["status"]["outcome"], answer["status"]["cause"]) == ("lost", "not_started")


def test_code_that_was_pushed_is_moved_in_and_can_be_linked_by_the_next_run(agent, paths):
    first, second = run_id(), run_id()
    incoming = paths.incoming(f"{first}/code")
    os.makedirs(incoming)
    with open(f"{incoming}/train.sh", "w") as file:
        file.write("cat data/words.txt; echo more >> logs/train.log; echo $GPURUN_RESUME\n")
    os.makedirs(f"{incoming}/logs")
    open(f"{incoming}/logs/.gitkeep", "w").close()
    os.makedirs(paths.data("words-1"))
    with open(paths.data("words-1") + "/words.txt", "w") as file:
        file.write("some words\n")
    args = {"data": [{"path": "data", "key": "words-1"}], "outputs": ["logs", "models"], "job": {"name": "x"}}
    launch(agent, ["sh", "train.sh"], first, code={"incoming": True, "digest": "d" * 64}, **args)
    assert until_finished(agent, first)["outcome"] == "succeeded"
    run = paths.run(first)
    assert not os.path.exists(paths.incoming(first))
    assert os.listdir(run.outputs + "/logs") and Path(run.outputs + "/logs/train.log").read_text() == "more\n"
    assert os.path.islink(run.code + "/data") and os.path.islink(run.code + "/models")
    assert read_json(run.job) == {"name": "x"}

    launch(agent, ["sh", "train.sh"], second, code={"link_from": first, "digest": "d" * 64}, **args)
    assert until_finished(agent, second)["outcome"] == "succeeded"
    assert os.stat(paths.run(second).code + "/train.sh").st_ino == os.stat(run.code + "/train.sh").st_ino
    assert Path(paths.run(second).outputs + "/logs/train.log").read_text() == "more\n"


def test_a_resumed_run_has_the_weights_as_links_and_writes_its_own_copies_of_the_rest(agent, paths):
    first, second = run_id(), run_id()
    script = (
        "mkdir -p checkpoints/step-1; echo l > logs/l;"
        "echo w > checkpoints/step-1/model.safetensors; echo 1 > checkpoints/step-1/state.json"
    )
    launch(agent, ["sh", "-c", script], first, outputs=["checkpoints", "logs"])
    until_finished(agent, first)
    change = "echo $GPURUN_RESUME; echo 2 > checkpoints/step-1/state.json; ls logs"
    resume = {"run_id": first, "checkpoint": "step-1"}
    launch(agent, ["sh", "-c", change], second, outputs=["checkpoints", "logs"], resume=resume)
    until_finished(agent, second)
    assert log_of(agent, second) == b"step-1\n"  # and no old logs
    old, new = (paths.run(run).outputs + "/checkpoints/step-1/" for run in (first, second))
    assert os.stat(old + "model.safetensors").st_ino == os.stat(new + "model.safetensors").st_ino
    assert (Path(old + "state.json").read_text(), Path(new + "state.json").read_text()) == ("1\n", "2\n")


def test_a_run_that_is_still_going_cannot_be_resumed(agent):
    run = run_id()
    launch(agent, ["sleep", "30"], run)
    with pytest.raises(LaunchError, match="still going"):
        launch(agent, ["true"], resume={"run_id": run, "checkpoint": "auto"})
    agent.call("stop", {"run_id": run, "grace": 1})


@pytest.mark.parametrize("path", ["../out", "/etc/x", "a/../../b", "", ".", "link/inside"])
def test_a_path_that_leads_out_of_the_code_is_refused_and_nothing_is_left(agent, paths, path, tmp_path):
    run = run_id()
    incoming = paths.incoming(f"{run}/code")
    os.makedirs(incoming)
    os.symlink(tmp_path, f"{incoming}/link")
    with pytest.raises(LaunchError):
        launch(agent, ["true"], run, code={"incoming": True, "digest": ""}, outputs=[path])
    assert not os.path.exists(paths.run(run).folder)
    assert os.path.isdir(incoming)  # the next try finds it again
    assert not os.path.exists(volatile_folder(run))


def test_code_that_did_not_arrive_is_said_and_nothing_is_claimed(agent, paths):
    run = run_id()
    with pytest.raises(TransferInterrupted, match="did not arrive"):
        launch(agent, ["true"], run, code={"incoming": True, "digest": ""})
    assert not os.path.exists(paths.run(run).folder)


@pytest.mark.parametrize("name", ["../../etc", "x", "x-20260102-142030-7f3a/..", None, 7])
def test_what_is_not_a_run_id_is_refused(agent, name):
    with pytest.raises(GpurunError, match="not a run id"):
        agent.call("launch", {"run_id": name, "command": ["true"]})


def test_the_time_limit_ends_a_run(agent):
    run = run_id()
    launch(agent, ["sleep", "60"], run, time_limit=0.5)
    final = until_finished(agent, run)
    assert (final["outcome"], final["cause"]) == ("timed_out", "time_limit")


def test_what_the_payload_leaves_running_is_ended_with_it(agent):
    run = run_id()
    launch(agent, ["sh", "-c", "setsid sleep 60 & sleep 60 & exit 5"], run)
    assert until_finished(agent, run)["exit"]["number"] == 5
    assert run not in processes.by_cookie(processes.scan())


def test_the_supervisor_costs_little(agent, paths):
    run = run_id()
    launch(agent, ["sleep", "30"], run)
    owner = read_json(paths.run(run).owner)
    with open(f"/proc/{owner['pid']}/status") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    agent.call("stop", {"run_id": run, "grace": 1})
    assert resident < 30 * 1024


# Secrets


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
        assert "HF_TOKEN" not in shown(agent, run)["env"]


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


# GPUs, of which there are none here: what NVML would say is read from a file


@pytest.fixture
def two_gpus(tmp_path):
    place = tmp_path / "gpus.json"
    row = {"name": "H100", "memory_total": 80 << 30, "memory_used": 0, "utilisation": 0}
    place.write_text(json.dumps([{"number": n, "uuid": f"GPU-{os.urandom(6).hex()}", **row} for n in range(2)]))
    return str(place)


@pytest.mark.stand_in
def test_two_runs_never_share_a_gpu_and_the_third_is_told_who_has_them(home, two_gpus):
    first, second = run_id("first"), run_id("second")
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        for run in (first, second):
            launch(agent, ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES {gpus}; exec sleep 60"], run, gpus=1)
        assert [status(agent, run)["gpus"] for run in (first, second)] == [[0], [1]]
        with pytest.raises(GpuBusy, match=f"held by {first}, {second}"):
            launch(agent, ["true"], gpus=1)
        with pytest.raises(BoxNotReady, match="asks for 3 GPUs, the box has 2"):
            launch(agent, ["true"], gpus=3)
        agent.call("stop", {"run_id": first, "grace": 1})
        third = launch(agent, ["sleep", "60"], gpus=1)
        assert third["status"]["gpus"] == [0]
        for run in (second, third["status"]["run_id"]):
            agent.call("stop", {"run_id": run, "grace": 1})
        assert log_of(agent, second) == b"1 1\n"


@pytest.mark.stand_in
def test_queued_runs_start_in_their_order_as_gpus_come_free(home, two_gpus):
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        holder = launch(agent, ["sleep", "60"], gpus="all")["status"]["run_id"]
        queued = [run_id(name) for name in ("one", "two", "three")]
        for run in queued:
            assert (
                launch(agent, ["sleep", "60"], run, gpus="all", queue=True, secrets={"A": "b"})["status"]["phase"]
                == "prepared"
            )
        wait_until(lambda: holder in (status(agent, queued[0])["evidence"] or ""))
        cancelled = agent.call("stop", {"run_id": queued[1]})
        assert cancelled["status"]["outcome"] == "cancelled"
        agent.call("stop", {"run_id": holder, "grace": 1})
        wait_until(lambda: status(agent, queued[0])["phase"] == "running")
        assert status(agent, queued[2])["phase"] == "prepared"
        agent.call("stop", {"run_id": queued[0], "grace": 1})
        wait_until(lambda: status(agent, queued[2])["phase"] == "running")
        assert status(agent, queued[2])["gpus"] == [0, 1]
        agent.call("stop", {"run_id": queued[2], "grace": 1})


# The box in trouble


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


def test_a_lock_whose_file_was_removed_is_no_false_death(agent):
    run = run_id()
    launch(agent, ["sleep", "60"], run)
    os.unlink(locks.run_lock(run))  # as systemd does at a user's last logout
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
