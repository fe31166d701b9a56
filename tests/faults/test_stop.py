"""Stop leaves nothing of a run and touches nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.wire.paths import volatile_folder
from tests.support.agent import wait_until
from tests.support.box import Box, only_as_root
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.proxy import Proxy


def survivors(run_id: str, since: dict[int, processes.Process]) -> list[processes.Process]:
    """What is left of a run: by its cookie, and by what the test saw of its tree while it lived."""
    now = processes.scan()
    return [
        process
        for process in now.values()
        if processes.cookie(process.pid) == run_id
        or (process.pid in since and since[process.pid].start == process.start)
    ]


def tree_of(run_id: str, shown: str) -> dict[int, processes.Process]:
    """The processes of a run now: those with its cookie, and those whose command line has ``shown`` in it."""
    found = {}
    for process in processes.scan().values():
        try:
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if processes.cookie(process.pid) == run_id or shown.encode() in command:
            found[process.pid] = process
    return found


def begun(gpurun: Gpurun, job: Any, program: str, **fields: Any) -> str:
    run_id = gpurun.submit(job(program, **fields))
    wait_until(lambda: "begun" in (gpurun.box_run(run_id) / "log").read_text())
    return run_id


@contextmanager
def decoys(run_id: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of other users of the box: another run's cookie, none at all, and one whose command line names our run."""
    sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
    environments = [{}, {"GPURUN_RUN_ID": "other-20260101-000000-abcd"}, {"NOT_GPURUN_RUN_ID": run_id}]
    started = [
        subprocess.Popen([*sleep, run_id], env={**os.environ, **more}, start_new_session=True) for more in environments
    ]
    try:
        yield started
    finally:
        for each in started:
            each.kill()
            each.wait()


def test_57_a_payload_that_ignores_term_is_killed_at_the_end_of_the_grace(gpurun: Gpurun, job: Any) -> None:
    run_id = begun(
        gpurun,
        job,
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(1000)",
    )
    began = time.monotonic()
    stopped = gpurun.json("stop", "--grace", "3")
    assert time.monotonic() - began >= 3
    assert stopped["status"]["outcome"] == "cancelled"
    assert not survivors(run_id, {})


def test_a_stop_whose_connection_is_cut_is_asked_again_and_leaves_nothing(gpurun: Gpurun, box: Box, job: Any) -> None:
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(1000)"
    with Proxy(box.port) as link:
        gpurun("submit", str(job(deaf)), "--host", box.address(link.port))
        run_id = gpurun.json("list")["runs"][0]["run_id"]
        wait_until(lambda: "begun" in (gpurun.box_run(run_id) / "log").read_text())
        stopping = gpurun.start("stop", "--grace", "3")
        wait_until(lambda: Path(volatile_folder(run_id), "stop").exists())  # the supervisor is being asked
        link.cut()
        out, said = stopping.communicate(timeout=60)
    assert stopping.returncode == 0 and "trying again" in said and "no process of it is left" in out, said
    assert not survivors(run_id, {})


@pytest.mark.slow
def test_57_the_usual_grace_is_45_seconds(gpurun: Gpurun, job: Any) -> None:
    begun(
        gpurun,
        job,
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(1000)",
    )
    began = time.monotonic()
    gpurun("stop")
    assert time.monotonic() - began >= 45


# Everything that a training run may have below it, each deaf to TERM.
TREE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mark = os.environ["GPURUN_RUN_ID"]
def leave():
    time.sleep(1000)
    os._exit(0)
def clean_environment():  # execs without the cookie, as sudo or a daemon would
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000)"
    os.execve(sys.executable, [sys.executable, "-c", deaf, "tree-of-" + mark], {})
for kind in ("worker", "session", "double", "double-session", "no-cookie", "stopped"):
    if os.fork() == 0:
        if "session" in kind:
            os.setsid()
        if "double" in kind and os.fork() != 0:
            os._exit(0)
        if kind == "no-cookie":
            clean_environment()
        if kind == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        leave()
# A breeder: replaces itself again and again, so that whoever kills what was seen a moment ago comes too late.
if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork() != 0:
            time.sleep(0.005)
            os._exit(0)
# A storm: a parent whose children fork while it is being killed.
if os.fork() == 0:
    os.setsid()
    while True:
        if len(os.listdir("/proc")) < 2000 and os.fork() == 0:
            time.sleep(0.3)
            os._exit(0)
        time.sleep(0.01)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
print("begun", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("killed", [None, "supervisor"], ids=["whole", "orphaned"])
def test_58_nothing_of_a_tree_is_left_whatever_it_forks_and_strangers_are_untouched(
    gpurun: Gpurun, job: Any, figure: Record, killed: str | None
) -> None:
    run_id = begun(gpurun, job, TREE)
    tree = tree_of(run_id, f"tree-of-{run_id}")
    assert len(tree) >= 8
    if killed:
        owner = json.loads((gpurun.box_run(run_id) / "owner.json").read_text())
        os.kill(owner["pid"], signal.SIGKILL)
    with decoys(run_id) as others:
        gpurun("stop", "--grace", "1")
        left = survivors(run_id, tree)
        figure("survivors 45 s after stop", len(left), 0)
        assert [each.poll() for each in others] == [None] * 3


LOADER = """
import os, time, torch
from torch.utils.data import DataLoader, Dataset
class Slow(Dataset):
    def __len__(self): return 10000
    def __getitem__(self, i):
        time.sleep(0.05)
        return torch.zeros(4)
if __name__ == "__main__":
    for i, batch in enumerate(DataLoader(Slow(), batch_size=4, num_workers=2, persistent_workers=True)):
        if i == 1:
            print("begun", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True], ids=["data-loader", "torchrun"])
def test_58_workers_of_torch_are_ended_with_the_run(
    gpurun: Gpurun, box: Box, job: Any, figure: Record, torchrun: bool
) -> None:
    command = [sys.executable, "main.py"]
    if torchrun:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main.py"]
    run_id = begun(gpurun, job, LOADER, command=command)
    wanted = 7 if torchrun else 3
    wait_until(lambda: len(tree_of(run_id, run_id)) >= wanted)  # "begun" is one rank's word
    tree = tree_of(run_id, run_id)
    gpurun("stop", "--grace", "5")
    figure("survivors 45 s after stop", len(survivors(run_id, tree)), 0)


@contextmanager
def frozen_disk(folder: Path) -> Iterator[Path]:
    """A file system that can be frozen: whoever writes to it then waits in the kernel, and not even KILL ends them."""
    only_as_root()
    for tool in ("mkfs.ext4", "losetup", "fsfreeze"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    image = folder / "image"
    image.touch()
    os.truncate(image, 16 << 20)
    (folder / "disk").mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(folder / "disk")]).returncode != 0:
        pytest.skip("needs loop devices (CAP_SYS_ADMIN and /dev/loop*)")
    try:
        yield folder / "disk"
    finally:
        subprocess.run(["fsfreeze", "-u", str(folder / "disk")], check=False)
        wait_until(lambda: subprocess.run(["umount", str(folder / "disk")], capture_output=True).returncode == 0)


@pytest.mark.slow
def test_59_what_cannot_be_killed_is_named_within_60_seconds(
    gpurun: Gpurun, job: Any, tmp_path: Path, figure: Record
) -> None:
    with frozen_disk(tmp_path) as disk:
        program = f"""
import os, time
print("begun", flush=True)
while not os.path.exists("{tmp_path}/frozen"):
    time.sleep(0.02)
open("{disk}/file", "w").write("this waits in the kernel")
"""
        run_id = begun(gpurun, job, program)
        subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
        (tmp_path / "frozen").touch()
        payload = json.loads((gpurun.box_run(run_id) / "owner.json").read_text())["payload"]["pid"]
        wait_until(lambda: (now := processes.read(payload)) is not None and now.state == "D")
        began = time.monotonic()
        refused = gpurun("stop", check=10)
        took = time.monotonic() - began
        assert f"{payload} (" in refused.stderr and "still there" in refused.stderr
        assert gpurun.json("status")["status"]["phase"] == "running"  # it is not over, and nobody says so
        subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
        wait_until(lambda: processes.read(payload) is None)
        gpurun("stop", "--grace", "1")
    figure("what cannot be killed, named after", took, 60, "s")


@pytest.mark.slow
def test_60_a_stop_that_races_the_exit_keeps_the_true_exit(gpurun: Gpurun, job: Any) -> None:
    program = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("begun", flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(7)
"""
    for pause in ("0.2", "0.6", "1.0"):
        run_id = gpurun.submit(job(program, command=["python3", "main.py", pause]))
        stopped = gpurun.json("stop", run_id, "--grace", "5")["status"]
        assert (stopped["outcome"], stopped["exit"]["kind"]) in {("failed", "exit"), ("cancelled", "cancelled")}
        assert stopped["exit"]["number"] in ((7,) if stopped["outcome"] == "failed" else (7, 128 + signal.SIGTERM))


def test_60_a_stop_after_the_exit_changes_nothing(gpurun: Gpurun, job: Any) -> None:
    gpurun.submit(job("raise SystemExit(7)"))
    gpurun("logs", "-f", check=10)
    stopped = gpurun.json("stop")["status"]
    assert (stopped["outcome"], stopped["exit"]["number"]) == ("failed", 7)
