import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_payload.agent.box import badge, locks, processes
from remote_payload.agent.run import slot
from remote_payload.agent.verbs.box import stale
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request

pytestmark = pytest.mark.stand_in  # regular files stand in for /dev/nvidia<n>; the processes are real

RUN_ID = "legal-20260102-142030-57a1"
FORKS = (
    "import os, sys, time; f = open(sys.argv[1]); c = os.fork()\n"
    "if not c: f.close(); print(os.getppid(), os.getpid(), flush=True)\n"
    "time.sleep(60)"
)
# A child without environment that has the GPU open; its parent, which carries the cookie, has not.
BARE_CHILD = (
    "import os, sys, time\n"
    "if not os.fork(): os.execve(sys.executable, [sys.executable, '-c', sys.argv[2], sys.argv[1]], {})\n"
    "time.sleep(60)"
)
HOLD = "import sys, time; f = open(sys.argv[1]); print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def box(tmp_path, monkeypatch):
    for number in (0, 1):
        (tmp_path / f"nvidia{number}").write_text("")
    monkeypatch.setattr(processes, "GPU_DEVICE", re.compile(re.escape(str(tmp_path)) + r"/nvidia(\d+)"))
    monkeypatch.setattr(stale, "GRACE", 1.0)
    (tmp_path / "gpus.json").write_text("[]")
    monkeypatch.setenv("GPURUN_FAKE_GPUS", str(tmp_path / "gpus.json"))
    paths = BoxPaths(str(tmp_path / "root"))
    os.makedirs(paths.runs)
    return paths


@pytest.fixture
def start(tmp_path):
    """Starts a real process with a GPU open; all end with the test."""
    started = []

    def start(source=HOLD, cookie=None, gpu=0, argv0=None, words=(), wearing=None):
        variables = {name: value for name, value in os.environ.items() if name != "GPURUN_RUN_ID"}
        if cookie:
            variables["GPURUN_RUN_ID"] = cookie
        process = subprocess.Popen(
            [argv0 or sys.executable, "-c", source, str(tmp_path / f"nvidia{gpu}"), *words],
            executable=sys.executable,
            env=variables,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=(lambda: badge.set_badge(wearing)) if wearing else None,
        )
        started.append(process)
        process.told = process.stdout.readline().split()
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(10)
        process.stdout.close()


def finished(box, run_id=RUN_ID):
    run = box.run(run_id)
    os.makedirs(run.folder)
    slot.allocate(run)
    slot.write(run, ExitRecord("exit", 0, 1.0))
    return run


def ask(box, **args):
    return stale.stale(Request(args, box))


def pids(entries):
    return sorted(entry["pid"] for entry in entries)


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_a_process_that_belongs_to_a_living_run_by_its_parent_alone_is_never_ended(box, start):
    run = box.run(RUN_ID)
    os.makedirs(run.folder)
    lock = locks.take_run(run)
    start(BARE_CHILD, cookie=RUN_ID, words=[HOLD])
    answer = ask(box, kill=True)
    os.close(lock)
    assert answer["ended"] == [] and [each["run_id"] for each in answer["others"]] == [RUN_ID]
    assert answer["others"][0]["kept"] == "a run of gpurun that is not over"
    assert not has_ended(answer["others"][0]["pid"])


def test_what_a_finished_run_left_without_any_sign_of_its_own_is_ended(box, start):
    finished(box)
    parent = start(BARE_CHILD, cookie=RUN_ID, words=[HOLD])
    answer = ask(box)
    assert [each["run_id"] for each in answer["ended"]] == [RUN_ID] and answer["others"] == []
    assert has_ended(answer["ended"][0]["pid"]) and parent.wait(10) == -signal.SIGTERM


def test_what_a_finished_run_left_is_ended_with_its_tree_though_it_ignores_term(box, start):
    finished(box)
    stubborn = (
        "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN); f = open(sys.argv[1])\n"
        "child = os.fork()\n"
        "if not child: os.setsid(); f.close(); print('ready', os.getpid(), flush=True)\n"
        "time.sleep(60)"
    )
    process = start(stubborn, cookie=RUN_ID)
    child = int(process.told[1])
    answer = ask(box)
    assert pids(answer["ended"]) == [process.pid] and answer["others"] == [] and answer["survivors"] == []
    assert answer["ended"][0]["run_id"] == RUN_ID
    assert process.wait(10) == -signal.SIGKILL and has_ended(child)


def test_a_strangers_process_is_listed_with_owner_age_command_and_memory_and_left_alone(box, start):
    process = start(words=["--token", "hf_" + "a" * 20, "esc\x1b]0;x\x07"])
    answer = ask(box)
    (entry,) = answer["others"]
    assert entry["pid"] == process.pid and entry["gpus"] == [0] and entry["kept"] is None
    assert entry["user"] and 0 <= entry["age"] < 3600 and entry["memory"] > 1 << 20
    assert "hf_" not in entry["command"] and entry["command"].isprintable() and len(entry["command"]) <= 200
    assert process.poll() is None and answer["ended"] == []


def test_kill_ends_a_stranger_and_its_children_but_not_its_session(box, start):
    shell = (
        "import subprocess, sys, time\n"
        "editor = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"inner = {FORKS!r}\n"
        "holder = subprocess.Popen([sys.executable, '-c', inner, sys.argv[1]], stdout=subprocess.PIPE)\n"
        "print(editor.pid, holder.stdout.readline().decode(), flush=True)\n"
        "time.sleep(60)"
    )
    process = start(shell)
    editor, holder, child = (int(word) for word in process.told)
    answer = ask(box, kill=True)
    assert pids(answer["ended"]) == [holder]
    assert has_ended(holder) and has_ended(child) and not has_ended(editor) and process.poll() is None


@pytest.mark.parametrize("argv0", ["sshd: root@pts/0", "/usr/sbin/sshd", "/opt/bin/jupyter-lab", "ipykernel_launcher"])
def test_sshd_and_jupyter_are_never_ended(box, start, argv0):
    process = start(argv0=argv0)
    answer = ask(box, kill=True)
    assert pids(answer["others"]) == [process.pid] and answer["others"][0]["kept"] in ("sshd", "Jupyter")
    assert process.poll() is None and answer["ended"] == []


DESKTOP = (
    """
/usr/lib/xorg/Xorg vt2 -displayfd 3|/usr/bin/Xwayland :0|/usr/bin/gnome-shell|/usr/libexec/gnome-session-binary
/usr/bin/kwin_wayland|/usr/bin/kwin_x11|/usr/bin/plasmashell|/usr/sbin/gdm3|/usr/libexec/gdm-x-session|/usr/bin/sddm
/usr/sbin/lightdm|lightdm --session-child 12 19|/usr/bin/xfwm4|cinnamon --replace|/usr/bin/sway|Hyprland|/usr/bin/i3
mate-session|/usr/bin/Xtigervnc :1|x11vnc -forever|/usr/sbin/xrdp|/usr/lib/systemd/systemd --user
/usr/bin/nvidia-persistenced|/usr/bin/picom|/usr/bin/compiz|sddm-greeter
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.mark.parametrize("command", DESKTOP)
def test_a_desktop_is_never_ended(box, start, command):
    process = start(argv0=command)
    answer = ask(box, kill=True)
    assert pids(answer["others"]) == [process.pid] and answer["others"][0]["kept"], answer
    assert process.poll() is None and answer["ended"] == []


def test_who_draws_a_screen_is_never_ended_whatever_its_name(box, start, tmp_path, monkeypatch):
    (tmp_path / "card0").touch()
    monkeypatch.setattr(stale, "SCREEN", re.compile(re.escape(str(tmp_path)) + r"/(card\d+)"))
    program = (
        "import sys, time; f = open(sys.argv[1]); g = open(sys.argv[2]); print('ready', flush=True); time.sleep(60)"
    )
    process = start(program, words=[str(tmp_path / "card0")])
    assert [each["kept"] for each in ask(box, kill=True)["others"]] == ["it draws a screen"]
    assert process.poll() is None


@pytest.mark.parametrize(
    "argv0",
    [
        "python3",
        "/opt/conda/bin/python",
        "materials",
        "initialise",
        "lyrics",
        "slimmer",
        "nxt_train",
        "xformers-train",
        "unityml",
        "ddev",
    ],
)
def test_a_training_program_is_ended_though_its_arguments_name_a_desktop(box, start, argv0):
    process = start(argv0=argv0, words=["--name", "Xorg", "gnome-shell", "systemd"])
    assert pids(ask(box, kill=True)["ended"]) == [process.pid]


def test_we_and_who_started_us_are_never_ended(box, tmp_path):
    with open(tmp_path / "nvidia0"):
        answer = ask(box, kill=True)
    assert pids(answer["others"]) == [os.getpid()] and "gpurun itself" in answer["others"][0]["kept"]


def test_a_run_that_is_not_over_keeps_its_processes_even_with_kill(box, start):
    run = box.run(RUN_ID)
    os.makedirs(run.folder)
    slot.allocate(run)
    process = start(cookie=RUN_ID)
    elsewhere = start(cookie="other-20260102-142030-57a1")
    answer = ask(box, kill=True)
    assert pids(answer["others"]) == sorted([process.pid, elsewhere.pid])
    assert process.poll() is None and elsewhere.poll() is None


def test_a_process_that_shows_its_run_by_nothing_but_the_badge_is_the_runs(box, start):
    run_id = RUN_ID[:-4] + "57a2"
    os.makedirs(box.run(run_id).folder)  # neither a lock nor a slot: nobody knows of it but the process
    process = start(wearing=run_id)
    answer = ask(box, kill=True)
    assert answer["ended"] == [] and process.poll() is None
    assert (answer["others"][0]["run_id"], answer["others"][0]["kept"]) == (run_id, "a run of gpurun that is not over")
    finished(box)
    left_over = start(wearing=RUN_ID)
    assert pids(ask(box)["ended"]) == [left_over.pid] and process.poll() is None


def test_only_the_gpus_asked_for_are_looked_at(box, start):
    zero, one = start(gpu=0), start(gpu=1)
    assert pids(ask(box, gpus=[1])["others"]) == [one.pid]
    assert pids(ask(box, gpus=1)["others"]) == sorted([zero.pid, one.pid])  # how many, not which


def test_memory_in_use_without_a_visible_process_is_reported(box, start, tmp_path):
    def gpu(number, used):
        return {"number": number, "uuid": f"GPU-{number}", "name": "x", "memory_total": 24 << 30,
                "memory_used": used << 30, "utilisation": 0}  # fmt: skip

    (tmp_path / "gpus.json").write_text(json.dumps([gpu(0, 20), gpu(1, 7), gpu(2, 0)]))
    start(gpu=0)
    assert ask(box)["held"] == [{"gpu": 1, "bytes": 7 << 30}]
