"""A Slurm cluster on this machine: the real munged, slurmctld and one slurmd a node, all with files in one folder and ports of their own.

Each machine of the cluster has process ids, /dev/shm and a host name of its own, so the login node sees no process of a job, as on
a real cluster. They share the disk. A GPU is a device file that computes nothing; Slurm deals it as a real one.

Nothing outlives the process that started it, however that ends: the first process of each machine reads a pipe from here, and the
machine ends at the pipe's end. The last one removes the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.boxes.container import container

NODES = ("n1", "n2")
GPUS = 4  # of each node
OTHER_USER = 65534  # nobody
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
BEGIN = "starttime=now+2seconds"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# config_overrides: Slurm believes the processors and the memory written here, whatever this machine has.
CONFIG = """\
ClusterName=gpurun
SlurmctldHost=controller(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdTimeout={patience}
SlurmdParameters=config_overrides
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
KillWait=5
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=1 State=UP
"""

# What the first process of a machine runs. Its arguments: the cluster's folder, the host name, the daemon with its words.
# A line on its stdin starts the daemon again.
MACHINE = """\
folder=$1; hostname "$2"; shift 2
mount --bind "$folder/hosts" /etc/hosts
mount -t tmpfs shm /dev/shm
"$@" </dev/null &
while read -r again; do "$@" </dev/null & done
[ "$1" != munged ] || { kill -9 -1; for try in 1 2 3 4 5; do rm -rf "$folder" && break; sleep 0.2; done; }
"""

# A layer over /usr/bin, in which one program is removed.
WITHOUT_SACCT = """\
mkdir /dev/shm/upper /dev/shm/work
mount -t overlay overlay -o lowerdir=/usr/bin,upperdir=/dev/shm/upper,workdir=/dev/shm/work /usr/bin
rm /usr/bin/sacct
"""


# What each machine has of its own.
OWN = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts"]


class Machine:
    """One machine of the cluster, with one daemon that stays in its foreground."""

    def __init__(self, folder: Path, name: str, *daemon: str) -> None:
        self.name, self._daemon = name, daemon[0]
        with (folder / f"{name}.out").open("ab") as out:
            self.process = subprocess.Popen(
                [*OWN, "sh", "-c", MACHINE, "machine", str(folder), name, *daemon],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")},
                cwd="/",
            )

    def processes(self) -> list[processes.Process]:
        """Everything that runs on it."""
        everything = processes.scan()
        return [everything[pid] for pid in processes.descendants(everything, self.process.pid)]

    def first(self) -> int:
        """The pid of its first process, by which ``nsenter`` comes into it."""
        return min(each.pid for each in self.processes())

    def daemon(self) -> processes.Process | None:
        """The daemon's process; None when it does not run."""
        return next((each for each in self.processes() if each.name == self._daemon), None)

    def kill_daemon(self, number: int = signal.SIGKILL) -> None:
        """Ends the daemon alone. What it started goes on."""
        found = self.daemon()
        assert found is not None, f"{self._daemon} does not run on {self.name}"
        processes.send(found, number)
        wait_until(lambda: self.daemon() is None)

    def start_daemon(self) -> None:
        """Starts the daemon again after ``kill_daemon``."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"again\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """KILL to every process of it at once, as when its power fails."""
        victims = self.processes()
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None and self.process.stdin.close() is None
        wait_until(lambda: all(processes.is_alive(each.pid, each.start) is None for each in victims))


class Cluster:
    """The nodes, the controller, and Slurm's commands as root, who may do everything, or as another user."""

    def __init__(self, patience: int = 10) -> None:
        """``patience``: seconds after which a node that does not answer is down, and its jobs are lost to it."""
        # Not in pytest's own folder, which other users may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="gpurun-slurm-"))
        self.commands = self.folder / "commands"  # programs here come before Slurm's own on the login node
        self._write(patience)
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        words = [f"--{option}={self.folder / name}" for option, name in {**files, "log-file": "munge.log"}.items()]
        self._munged = Machine(self.folder, "munge", "munged", "--foreground", "--force", *words)
        self.controller = Machine(self.folder, "controller", "slurmctld", "-D")
        self.nodes: dict[str, Machine] = {}
        try:
            # A slurmd that finds no controller asks again after ten seconds.
            wait_until(lambda: "UP" in self.ask("scontrol", "ping", check=False), limit=30)
            for name in NODES:
                self.start_node(name)
            wait_until(lambda: all(self.state(name) == "idle" for name in NODES), limit=30)
        except BaseException as error:
            logs = self.logs()
            self.end()
            raise AssertionError(f"the Slurm cluster does not start\n{logs}") from error

    def _write(self, patience: int) -> None:
        self.folder.chmod(0o755)
        for name in ("dev", "state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        for number in range(GPUS):
            os.mknod(self.folder / "dev" / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))  # as /dev/null
        key = self.folder / "munge.key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(1024))
        (self.folder / "hosts").write_text(
            "".join(f"127.0.0.1 {name}\n" for name in ("localhost", "controller", *NODES))
        )
        port, *ports = _free_ports(1 + len(NODES))
        node = "NodeName={} NodeAddr=127.0.0.1 Port={} CPUs=16 RealMemory=64000 Gres=gpu:{}"
        nodes = "\n".join(node.format(*each, GPUS) for each in zip(NODES, ports, strict=True))
        text = CONFIG.format(port=port, folder=self.folder, patience=patience, nodes=nodes)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/dev/gpu[0-{GPUS - 1}]\n")
        (self.folder / "cgroup.conf").touch()
        self.commands.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need in their environment to find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start_node(self, name: str) -> None:
        self.nodes[name] = Machine(self.folder, name, "slurmd", "-D", "-N", name)

    def fail_node(self, name: str) -> None:
        """The node's power fails, and the controller is told so, which by itself it notices after half a minute."""
        self.nodes[name].end()
        self.ask("scontrol", "update", f"nodename={name}", "state=down", "reason=no power")

    def state(self, node: str) -> str:
        """As ``sinfo`` says it: idle, mixed, allocated, down …; with a star where the node does not answer; empty without a controller."""
        return self.ask("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T", check=False)

    def await_idle(self) -> None:
        """Awaits that every node is free. One that Slurm has drained or given up because of what happened to it is taken back."""

        def idle(name: str) -> bool:
            state = self.state(name)
            if state.startswith(("down", "drain")):
                self.ask("scontrol", "update", f"nodename={name}", "state=resume", check=False)
            return state == "idle"

        try:
            # A controller that was started again may take a minute until it counts a node as answering.
            wait_until(lambda: all(map(idle, NODES)), limit=150, every=0.1)
        except AssertionError as error:
            states = {name: self.state(name) for name in NODES}
            shown = f"{states}\n{self.ask('sinfo', '-N', '-l', check=False)}"
            raise AssertionError(f"{shown}\n{self.ask('squeue', check=False)}\n{self.logs()}") from error

    def ask(self, *argv: str, check: bool = True, user: int = 0) -> str:
        """Runs one of Slurm's commands; what it printed, without spaces around it."""
        done = subprocess.run(
            argv, env={"PATH": PATH, "HOME": "/", **self.environment}, cwd="/", user=user, group=user, extra_groups=[],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{argv} ended with {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def job_state(self, job: str) -> str:
        """The one word of ``squeue``: PENDING, RUNNING, COMPLETED …; empty where the job is not known any more."""
        return self.ask("squeue", "-h", "-t", "all", "-j", job, "-o", "%T", check=False)

    def begin_now(self, job: str) -> None:
        """Makes the two minutes that a job waits after a requeue two seconds, once nothing of its last start is on a node any more.

        A start in the same second as the end of the last one would be refused: slurmd keeps the ends in whole seconds.
        """
        step = f"slurmstepd: [{job}.batch]"
        wait_until(lambda: self.ask("squeue", "-h", "-j", job, "-o", "%T %r") == "PENDING BeginTime")
        wait_until(
            lambda: (
                not any(
                    processes.command(each.pid) == step for node in self.nodes.values() for each in node.processes()
                )
            )
        )
        self.ask("scontrol", "update", f"jobid={job}", BEGIN)

    def logs(self) -> str:
        """The daemons' logs, for a test that failed."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        for machine in (*self.nodes.values(), self.controller, self._munged):
            if machine.process.poll() is None:
                machine.end()
        shutil.rmtree(self.folder)


def _free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for each in taken:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def needs_slurm() -> None:
    """Skips where no cluster can be started, and says what is missing."""
    if os.getuid() != 0:
        pytest.skip("a Slurm cluster of the test's own needs root (namespaces, device files)")
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here; on Debian and Ubuntu .ci/setup installs Slurm as root")
    with tempfile.TemporaryDirectory() as folder:
        tried = [*OWN, "mknod", f"{folder}/gpu", "c", "1", "3"]
        done = subprocess.run(tried, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine makes no namespaces or no device files: {done.stderr.strip()}")


@contextmanager
def running_cluster(patience: int = 10) -> Iterator[Cluster]:
    """A cluster for the length of the block."""
    needs_slurm()
    started = Cluster(patience)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with four stand-in GPUs each, for all tests of a module."""
    with running_cluster() as started:
        yield started


@contextmanager
def login_node(box: Box, cluster: Cluster, *prepare: str) -> Iterator[str]:
    """The test's box as the cluster's login node, in a container of its own; what is typed after ``--host``.

    ``prepare``: lines of shell that run in it before its sshd, such as ``WITHOUT_SACCT``.
    """
    box.configure(PATH=f"{cluster.commands}:/usr/local/bin:{PATH}", **cluster.environment)
    with container(box, *prepare):
        yield box.address()
        (box.home / "go").touch()  # what the payloads of these tests wait for
        for job in cluster.ask("squeue", "-h", "-o", "%A").split():
            cluster.ask("scancel", "--full", "-s", "KILL", job, check=False)
            cluster.ask("scancel", job, check=False)
        wait_until(lambda: cluster.ask("squeue", "-h", "-o", "%A") == "")
        for program in cluster.commands.iterdir():
            program.unlink()
