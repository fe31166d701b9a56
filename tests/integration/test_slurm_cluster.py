"""The test's own Slurm cluster is what the tests of the Slurm engine take it for."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.boxes.slurm import GPUS, NODES, OTHER_USER, WITHOUT_SACCT, Cluster, login_node
from tests.support.boxes.slurm import cluster as cluster
from tests.support.cli import REPOSITORY

SAYS = 'echo "$(hostname) $CUDA_VISIBLE_DEVICES $$ $(id -u)"; while [ ! -e {go} ]; do sleep 0.05; done'


def submit(cluster: Cluster, out: Path, *words: str, command: str, user: int = 0) -> str:
    return cluster.ask("sbatch", "--parsable", "-D", "/", "-o", str(out), *words, "--wrap", command, user=user)


def over(cluster: Cluster, *jobs: str) -> bool:
    return all(cluster.job_state(job) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING") for job in jobs)


def test_jobs_share_the_gpus_and_the_one_too_many_waits_with_its_reason(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    outs = [tmp_path / str(number) for number in range(len(NODES) * GPUS)]
    jobs = [submit(cluster, out, "--gpus=1", command=SAYS.format(go=go)) for out in outs]
    wait_until(lambda: all(out.exists() and out.read_text() for out in outs))
    places = sorted(tuple(out.read_text().split()[:2]) for out in outs)
    assert places == [(node, str(gpu)) for node in NODES for gpu in range(GPUS)]
    waits = submit(cluster, tmp_path / "last", "--gpus=1", command="true")
    wait_until(lambda: cluster.ask("squeue", "-h", "-j", waits, "-o", "%T %r") == "PENDING Resources")
    go.touch()
    wait_until(lambda: over(cluster, *jobs, waits))
    assert cluster.job_state(waits) == "COMPLETED"


def test_a_node_is_a_machine_of_its_own_and_another_user_is_himself(cluster: Cluster, tmp_path: Path) -> None:
    go = Path(f"/tmp/gpurun-test-{os.getpid()}-go")  # in a folder that every user may enter
    out = go.with_suffix(".out")
    try:
        job = submit(cluster, out, command=f"touch /dev/shm/mine; {SAYS.format(go=go)}", user=OTHER_USER)
        wait_until(lambda: out.exists() and out.read_text())
        node, *_, pid, user = out.read_text().split()
        assert user == str(OTHER_USER) and not Path("/dev/shm/mine").exists()
        found = next(each for each in cluster.nodes[node].processes() if _pid_inside(each) == int(pid))
        assert found.pid != int(pid)
        assert cluster.ask("squeue", "-h", "-j", job, "-o", "%u") == "nobody"
        go.touch()
        wait_until(lambda: over(cluster, job))
    finally:
        for path in (go, out):
            path.unlink(missing_ok=True)


def _pid_inside(process: processes.Process) -> int:
    """Its number in its own PID namespace."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


def test_a_killed_slurmd_leaves_its_job_and_a_dead_node_takes_it_along(cluster: Cluster, tmp_path: Path) -> None:
    go, out = tmp_path / "go", tmp_path / "out"
    job = submit(cluster, out, "-w", "n2", "--no-requeue", command=f"{SAYS.format(go=go)}; echo end")
    wait_until(lambda: out.exists() and out.read_text())
    node = cluster.nodes["n2"]
    node.kill_daemon()
    go.touch()
    wait_until(lambda: out.read_text().endswith("end\n"))
    node.start_daemon()
    wait_until(lambda: over(cluster, job))
    assert cluster.job_state(job) == "COMPLETED"

    go.unlink()
    job = submit(cluster, out, "-w", "n2", "--no-requeue", command=SAYS.format(go=go))
    wait_until(lambda: cluster.job_state(job) == "RUNNING" and out.read_text())
    cluster.fail_node("n2")
    wait_until(lambda: over(cluster, job))
    assert cluster.job_state(job) == "NODE_FAIL" and cluster.state("n2").startswith("down")
    cluster.start_node("n2")
    cluster.await_idle()


def test_the_login_node_has_the_commands_and_sees_no_process_of_a_job(cluster: Cluster, box: Box) -> None:
    with login_node(box, cluster, WITHOUT_SACCT) as address:
        words = [*shlex.split(address), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]

        def typed(line: str) -> str:
            return subprocess.run([*words, line], check=True, capture_output=True, text=True, timeout=60).stdout

        assert typed("sinfo -h -p main -o %D") == f"{len(NODES)}\n"
        assert typed("command -v sacct || echo none") == "none\n"
        wait = f"sleep 31415; ls {box.home}/go"
        job = typed(
            f"sbatch --parsable --gpus=2 -o {box.home}/out --wrap 'echo $HOME $CUDA_VISIBLE_DEVICES; {wait}'"
        ).strip()
        out = box.home / "out"
        wait_until(lambda: out.exists() and out.read_text() == f"{box.home} 0,1\n")
        assert "31415" not in typed("ps ax") and "slurmd" not in typed("ps ax")
        (cluster.commands / "squeue").write_text("#!/bin/sh\nexit 0\n")
        (cluster.commands / "squeue").chmod(0o755)
        assert typed("squeue") == "" and cluster.job_state(job) == "RUNNING"
    assert cluster.job_state(job) in ("CANCELLED", "FAILED")


def test_nothing_of_it_outlives_a_killed_test_run(cluster: Cluster) -> None:
    program = """
from tests.support.boxes.slurm import Cluster
mine = Cluster()
print(mine.folder, *(each.pid for m in (mine.controller, *mine.nodes.values()) for each in m.processes()), flush=True)
input()
"""
    started = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdout is not None
    folder, *pids = started.stdout.readline().split()
    found = [each for each in map(processes.read, map(int, pids)) if each is not None]
    assert len(found) >= 1 + len(NODES) and Path(folder).is_dir()
    started.send_signal(signal.SIGKILL)
    started.communicate()
    wait_until(lambda: all(processes.is_alive(each.pid, each.start) is None for each in found), limit=10)
    wait_until(lambda: not Path(folder).exists(), limit=10)
