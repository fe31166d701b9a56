"""Launching through a real agent: once, literally, with what the payload was promised."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json
from remote_payload.agent.box.snapshot import fingerprint
from remote_payload.agent.run.run_folder import inherit_outputs
from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.paths import volatile_folder
from runner.domain.errors import GpurunError, LaunchError, NotStarted, PushDiffers, TransferInterrupted
from tests.support.agent import (
    FROM_SOURCE,
    SOURCE,
    launch,
    log_of,
    run_id,
    running_agent,
    status,
    until_finished,
    wait_until,
)

ATTEMPT = "1700000001-0a1b2c3d"
SHOW = "import json,os,sys; print(json.dumps({'argv': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd()}))"


def shown(agent, run):
    return json.loads(log_of(agent, run))


@pytest.mark.parametrize(
    ("command", "kind", "number", "outcome", "cause"),
    [
        (["true"], "exit", 0, "succeeded", None),
        (["sh", "-c", "exit 42"], "exit", 42, "failed", "exit 42"),
        (["sh", "-c", "kill -9 $$"], "signal", 9, "failed", "signal 9"),
        (["sh", "-c", "kill -SEGV $$"], "signal", 11, "failed", "signal 11"),
        (["no-such-program"], "exit", 127, "failed", "cannot_start"),
        (["./missing.sh"], "exit", 127, "failed", "cannot_start"),
        (["/etc/passwd"], "exit", 126, "failed", "cannot_start"),
        (["/"], "exit", 126, "failed", "cannot_start"),
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
    answered = launch(agent, command, run)["status"]  # at once: nobody has to ask again
    assert (answered["phase"], answered["outcome"], answered["cause"]) == ("finished", "failed", "cannot_start")
    assert says.decode() in answered["evidence"] and answered["advice"]
    assert says in log_of(agent, run)
    assert says.decode() in status(agent, run)["evidence"]


@pytest.mark.parametrize(("variables", "own"), [({}, True), ({"PATH": "/nowhere:/usr/bin:/bin"}, False)])
def test_python_is_the_runs_own_interpreter_unless_the_job_sets_path(agent, paths, variables, own, tmp_path):
    (tmp_path / "python3.99").symlink_to(sys.executable)  # a folder with an interpreter and nothing called python
    run = run_id()
    interpreter = str(tmp_path / "python3.99")
    launch(agent, ["python", "-c", "1"], run, interpreter=interpreter, variables=variables)
    assert (read_json(paths.run(run).launch)["argv"][0] == interpreter) is own
    until_finished(agent, run)


def test_the_program_of_a_command_is_looked_for_where_the_payload_will_look(agent, tmp_path):
    (tmp_path / "torchrun").write_text("#!/bin/sh\n")
    (tmp_path / "torchrun").chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)

    def found(program, **args):
        return agent.call("probe", {"program": program, **args})["have"]["program"]

    assert found("torchrun-9") is None
    assert found("sh").endswith("/sh")
    assert found("torchrun", interpreter=str(tmp_path / "python")) == str(tmp_path / "torchrun")
    assert found("torchrun", variables={"PATH": str(tmp_path)}) == str(tmp_path / "torchrun")
    assert found("python", interpreter=str(tmp_path / "python")) == str(tmp_path / "python")
    assert found("/etc/passwd") is None  # there, and no program


def test_arguments_and_variables_arrive_byte_for_byte(agent):
    words = [
        "$(touch owned)",
        "`id`",
        "a'b\"c",
        "new\nline",
        "; exit 1",
        "-rf",
        "",
        "ünï",
        "*",
        "{gpus}",
        "a{gpus}b{processes}",
    ]
    variables = {"PLAIN": "$(id)", "QUOTES": "a'b\"c\nd", "EMPTY": ""}
    run = run_id()
    launch(agent, [sys.executable, "-c", SHOW, *words], run, variables=variables, processes=2)
    told = shown(agent, run)
    assert told["argv"] == [word.replace("{gpus}", "0").replace("{processes}", "2") for word in words]
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
    incoming = paths.incoming(f"{first}/{ATTEMPT}")
    os.makedirs(incoming)
    with open(f"{incoming}/train.sh", "w") as file:
        file.write("cat data/words.txt; echo more >> logs/train.log; echo $GPURUN_RESUME\n")
    os.makedirs(f"{incoming}/logs")
    open(f"{incoming}/logs/.gitkeep", "w").close()
    os.makedirs(paths.data("words-1"))
    with open(paths.data("words-1") + "/words.txt", "w") as file:
        file.write("some words\n")
    args = {"data": [{"path": "data", "key": "words-1"}], "outputs": ["logs", "models"], "job": {"name": "x"}}
    code = {"digest": "d" * 64, "marks": fingerprint(incoming)}
    launch(agent, ["sh", "train.sh"], first, code={"incoming": f"{first}/{ATTEMPT}", **code}, **args)
    assert until_finished(agent, first)["outcome"] == "succeeded"
    run = paths.run(first)
    assert not os.path.exists(paths.incoming(first))
    assert os.listdir(run.outputs + "/logs") and Path(run.outputs + "/logs/train.log").read_text() == "more\n"
    assert os.path.islink(run.code + "/data") and os.path.islink(run.code + "/models")
    assert read_json(run.job) == {"name": "x"}

    launch(agent, ["sh", "train.sh"], second, code={"link_from": first, **code}, **args)
    assert until_finished(agent, second)["outcome"] == "succeeded"
    assert os.stat(paths.run(second).code + "/train.sh").st_ino == os.stat(run.code + "/train.sh").st_ino
    assert Path(paths.run(second).outputs + "/logs/train.log").read_text() == "more\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tree: os.unlink(tree / "gone"),
        lambda tree: (tree / "more").touch(),
        lambda tree: os.utime(tree / "train.sh", (1, 1)),
        lambda tree: (tree / "train.sh").chmod(0o700),
        lambda tree: (tree / "train.sh").write_text("longer than it was"),
        lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("gone")),
    ],
    ids=["missing", "too much", "time", "permissions", "size", "link"],
)
def test_code_that_is_not_what_was_meant_is_never_started(agent, paths, spoil):
    run = run_id()
    tree = Path(paths.incoming(f"{run}/{ATTEMPT}"))
    tree.mkdir(parents=True)
    for name in ("train.sh", "gone"):
        (tree / name).write_text("exit 0")
    (tree / "link").symlink_to("train.sh")
    code = {"incoming": f"{run}/{ATTEMPT}", "digest": "", "marks": fingerprint(str(tree))}
    spoil(tree)
    with pytest.raises(PushDiffers):
        launch(agent, ["true"], run, code=code)
    assert tree.is_dir() and not os.path.exists(paths.run(run).folder)


def test_permissions_that_a_payload_changed_do_not_reach_the_next_run(agent, paths):
    first, second = run_id(), run_id()
    tree = Path(paths.incoming(f"{first}/{ATTEMPT}"))
    tree.mkdir(parents=True)
    (tree / "train.sh").write_text("chmod 700 train.sh")
    code = {"digest": "d" * 64, "marks": fingerprint(str(tree))}
    launch(agent, ["sh", "train.sh"], first, code={"incoming": f"{first}/{ATTEMPT}", **code})
    until_finished(agent, first)
    with pytest.raises(PushDiffers):
        launch(agent, ["sh", "train.sh"], second, code={"link_from": first, **code})


def test_a_started_run_leaves_no_attempt_behind_that_anybody_could_write_to(agent, paths):
    run, frozen = run_id(), "1700000000-00000000"
    for attempt in (ATTEMPT, frozen):
        os.makedirs(paths.incoming(f"{run}/{attempt}"))
    code = {
        "incoming": f"{run}/{ATTEMPT}",
        "digest": "d" * 64,
        "marks": fingerprint(paths.incoming(f"{run}/{ATTEMPT}")),
    }
    assert launch(agent, ["true"], run, code=code)["code"] == "d" * 64
    assert not os.path.exists(paths.incoming(run))
    os.makedirs(paths.incoming(f"{run}/{frozen}"))  # one that wakes up afterwards
    late = launch(agent, ["true"], run, code={**code, "incoming": f"{run}/{frozen}", "digest": "e" * 64})
    assert late["attached"] and late["code"] == "d" * 64 and not os.path.exists(paths.incoming(run))


def test_a_resumed_command_that_writes_in_place_leaves_the_old_run_as_it_was(agent, paths):
    first, second = run_id(), run_id()
    script = "echo old > model.safetensors; mkdir -p ckpt; echo old > ckpt/w.pt"
    launch(agent, ["sh", "-c", f"cd out && {script}"], first, outputs=["out"])
    until_finished(agent, first)
    resume = {"run_id": first, "checkpoint": "auto"}
    launch(agent, ["sh", "-c", f"cd out && {script.replace('old', 'new')}"], second, outputs=["out"], resume=resume)
    until_finished(agent, second)
    for name in ("model.safetensors", "ckpt/w.pt"):
        assert Path(paths.run(first).outputs, "out", name).read_text() == "old\n"
        assert Path(paths.run(second).outputs, "out", name).read_text() == "new\n"


def test_a_resumed_recipe_shares_weights_and_has_its_own_copies_of_the_rest(paths):
    old, new = paths.run(run_id()), paths.run(run_id())
    for folder in ("logs", "checkpoints/step-1/smoke"):
        os.makedirs(os.path.join(old.outputs, folder))
    os.makedirs(new.folder)
    shared = ("checkpoints/step-1/model.safetensors", "checkpoints/step-1/smoke/expected.safetensors")
    apart = ("checkpoints/step-1/state.json", "checkpoints/step-1/manifest.json", "own.safetensors")
    for name in (*shared, *apart, "logs/l"):
        Path(old.outputs, name).write_text(name)
    inherit_outputs(old, new, share=True)
    assert sorted(os.listdir(new.outputs)) == ["checkpoints", "own.safetensors"]
    for name in (*shared, *apart):
        assert os.path.samefile(os.path.join(old.outputs, name), os.path.join(new.outputs, name)) == (name in shared)


def test_a_resumed_command_begins_with_copies_of_what_was_there(agent, paths):
    first, second = run_id(), run_id()
    script = "mkdir -p checkpoints/step-1; echo l > logs/l; echo w > checkpoints/step-1/w.pt; echo 1 > checkpoints/step-1/state.json"
    launch(agent, ["sh", "-c", script], first, outputs=["checkpoints", "logs"])
    until_finished(agent, first)
    change = "echo $GPURUN_RESUME; echo 2 > checkpoints/step-1/state.json; ls logs"
    resume = {"run_id": first, "checkpoint": "step-1"}
    launch(agent, ["sh", "-c", change], second, outputs=["checkpoints", "logs"], resume=resume)
    until_finished(agent, second)
    assert log_of(agent, second) == b"checkpoints/step-1\n"  # and no old logs
    assert Path(paths.run(first).outputs, "checkpoints/step-1/state.json").read_text() == "1\n"


def test_a_resumed_command_goes_on_from_the_newest_complete_checkpoint_without_a_half_one(agent, paths):
    first, second, third = run_id(), run_id(), run_id()
    whole = "mkdir -p out/checkpoint-%d; cd out/checkpoint-%d; echo o > optimizer.pt; echo '{}' > trainer_state.json; cd ../.."
    half = "mkdir out/checkpoint-3; echo o > out/checkpoint-3/optimizer.pt; printf 'PK\\003\\004half' > out/last.pt"
    script = "; ".join([whole % (1, 1), whole % (2, 2), "touch -d 2001-01-01 out/checkpoint-1/*", half])
    launch(agent, ["sh", "-c", script], first, outputs=["out"])
    until_finished(agent, first)
    ask = ["sh", "-c", "echo $GPURUN_RESUME; ls out"]
    launch(agent, ask, second, outputs=["out"], resume={"run_id": first, "checkpoint": "auto"})
    until_finished(agent, second)
    assert log_of(agent, second) == b"out/checkpoint-2\ncheckpoint-1\ncheckpoint-2\n"
    told = [json.loads(line) for line in Path(paths.run(second).events).read_text().splitlines()]
    left_out = [each["message"] for each in told if each.get("name") == "checkpoint_left_out"]
    assert sorted(left_out) == [
        f"out/checkpoint-3 was not copied from {first}: there is no trainer_state.json",
        f"out/last.pt was not copied from {first}: last.pt: its end is missing",
    ]
    launch(agent, ask, third, outputs=["out"], resume={"run_id": second, "checkpoint": "checkpoint-1"})
    until_finished(agent, third)
    assert log_of(agent, third).startswith(b"out/checkpoint-1\n")
    with pytest.raises(LaunchError, match="no checkpoint checkpoint-9"):
        launch(agent, ask, run_id(), outputs=["out"], resume={"run_id": first, "checkpoint": "checkpoint-9"})


def test_a_resumed_command_that_writes_through_a_link_changes_its_own_file(agent, paths):
    first, second = run_id(), run_id()
    script = 'cd out; mkdir -p a; test -e a/w || echo old > a/w; test -L latest || ln -s "$PWD/a" latest'
    launch(agent, ["sh", "-c", script], first, outputs=["out"])
    until_finished(agent, first)
    resume = {"run_id": first, "checkpoint": "auto"}
    launch(agent, ["sh", "-c", "echo new > out/latest/w"], second, outputs=["out"], resume=resume)
    until_finished(agent, second)
    assert Path(paths.run(first).outputs, "out/a/w").read_text() == "old\n"
    assert Path(paths.run(second).outputs, "out/a/w").read_text() == "new\n"


def test_what_a_killed_run_had_renamed_over_its_outputs_link_is_there_for_the_next_one(agent, paths):
    first, second = run_id(), run_id()
    launch(agent, ["sh", "-c", "echo w > tmp; mv tmp ckpt.pt; echo ready; exec sleep 60"], first, outputs=["ckpt.pt"])
    wait_until(lambda: Path(paths.run(first).log).read_text() == "ready\n")
    owner = json.loads(Path(paths.run(first).owner).read_text())
    for pid in (owner["pid"], owner["payload"]["pid"]):
        os.kill(pid, signal.SIGKILL)
    until_finished(agent, first)
    resume = {"run_id": first, "checkpoint": "auto"}
    launch(agent, ["sh", "-c", "echo $GPURUN_RESUME; cat ckpt.pt"], second, outputs=["ckpt.pt"], resume=resume)
    until_finished(agent, second)
    assert log_of(agent, second) == b"ckpt.pt\nw\n"


def test_outputs_in_folders_come_home_and_what_is_beside_them_stays(agent, paths):
    run = run_id()
    script = "echo w > results/best/w; echo m > results/metrics.json; echo t > results/scratch"
    launch(agent, ["sh", "-c", script], run, outputs=["results/best", "results/metrics.json"])
    until_finished(agent, run)
    found = agent.call("manifest", {"run_id": run})
    assert [each["path"] for each in found["files"]] == ["results/best/w", "results/metrics.json"]


def test_a_run_that_is_still_going_cannot_be_resumed(agent):
    run = run_id()
    launch(agent, ["sleep", "30"], run)
    with pytest.raises(LaunchError, match="still going"):
        launch(agent, ["true"], resume={"run_id": run, "checkpoint": "auto"})
    agent.call("stop", {"run_id": run, "grace": 1})


@pytest.mark.parametrize("path", ["../out", "/etc/x", "a/../../b", "", ".", "link/inside"])
def test_a_path_that_leads_out_of_the_code_is_refused_and_nothing_is_left(agent, paths, path, tmp_path):
    run = run_id()
    incoming = paths.incoming(f"{run}/{ATTEMPT}")
    os.makedirs(incoming)
    os.symlink(tmp_path, f"{incoming}/link")
    code = {"incoming": f"{run}/{ATTEMPT}", "digest": "", "marks": fingerprint(incoming)}
    with pytest.raises(LaunchError):
        launch(agent, ["true"], run, code=code, outputs=[path])
    assert not os.path.exists(paths.run(run).folder)
    assert os.path.isdir(incoming)  # the next try finds it again
    assert not os.path.exists(volatile_folder(run))


def test_code_that_did_not_arrive_is_said_and_nothing_is_claimed(agent, paths):
    run = run_id()
    with pytest.raises(TransferInterrupted, match="did not arrive"):
        launch(agent, ["true"], run, code={"incoming": f"{run}/{ATTEMPT}", "digest": ""})
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


def test_the_first_of_two_limits_ends_a_run_which_is_told_before(agent, paths):
    for limits, cause in (
        ({"time_limit": 60, "cost_limit": 1.0}, "cost_limit"),
        ({"time_limit": 1.0, "cost_limit": 60}, "time_limit"),
    ):
        run = run_id()
        launch(agent, ["sh", "-c", "trap 'echo saved; exit 0' TERM; while :; do sleep 0.05; done"], run, **limits)
        final = until_finished(agent, run)
        assert (final["outcome"], final["cause"]) == ("timed_out", cause)
        assert log_of(agent, run) == b"saved\n" and final["progress"]["flag"]["name"] == cause
        assert 1.0 <= final["ended_at"] - final["started_at"] < 30
        flags = [line for line in Path(paths.run(run).events).read_text().splitlines() if '"flag"' in line]
        assert len(flags) == 1 and f"nine tenths of its {cause} are over" in flags[0]


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


@pytest.mark.parametrize("pause", [0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_a_connection_dropped_between_command_and_answer_starts_the_run_once(home, paths, pause):
    run = run_id()
    args = {"run_id": run, "job": {}, "code": {}, "command": ["sh", "-c", "echo started; exec sleep 60"]}
    process = subprocess.Popen(
        [*FROM_SOURCE, "serve", "0" * 32],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HOME": str(home)},
    )
    process.stdin.write(protocol.encode_json(protocol.REQUEST, 1, {"verb": "launch", "args": args}))
    process.stdin.flush()
    time.sleep(pause)  # the moment at which the link dies, not something awaited
    process.stdout.close()
    process.stdin.close()
    with running_agent(home) as agent:
        answer = launch(agent, args["command"], run)
        assert process.wait(30) == 0
        wait_until(lambda: status(agent, run)["log_size"])
        assert answer["status"]["phase"] in ("launched", "running")
        with open(paths.run(run).log, "rb") as log:
            assert log.read() == b"started\n"
        agent.call("stop", {"run_id": run, "grace": 1})


def test_a_supervisor_that_cannot_start_is_quoted_since_its_log_goes_with_the_folder(home, paths):
    run = run_id()
    broken = home / "agent"
    shutil.copytree(SOURCE / "remote_payload" / "agent", broken / "remote_payload" / "agent")
    (broken / "remote_payload" / "__init__.py").touch()
    start = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(broken)!r}); from remote_payload.agent.__main__ import main; main()",
    ]
    with running_agent(home, start) as agent:
        (broken / "remote_payload" / "agent" / "run" / "supervisor.py").write_text(
            "raise ImportError('no module named _posixsubprocess')\n"
        )
        with pytest.raises(NotStarted, match=r"could not start: .*ImportError: no module named _posixsubprocess"):
            launch(agent, ["true"], run)
    assert not os.path.exists(paths.run(run).folder)
