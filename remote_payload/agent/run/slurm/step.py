"""The program as a step of the job (``srun``): on several nodes, or in a container. On one node without a container it is the supervisor's
own child, and needs none of this.

srun ends all tasks where one fails (``--kill-on-bad-exit``), and ends with the largest exit code of them. TERM to srun itself kills the
tasks at once; Slurm passes a signal on to them (``scancel --signal``).
"""

import os
import socket
import sys
from typing import Dict, Tuple

from remote_payload.agent.run import secrets
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, volatile_folder

PORTS = (
    20000,
    20000,
)  # the rendezvous is at one of so many ports, from the first one on: by the job's number, as jobs may share a node
# Each node's own number, which no command line can hold; then the program itself.
RANK = """import os, sys
rank = os.environ["SLURM_NODEID"]
os.environ.update(PET_NODE_RANK=rank, NODE_RANK=rank)
os.execvp(sys.argv[1], sys.argv[1:])"""


def nodes(launch: LaunchFile) -> int:
    """How many nodes the job has."""
    wanted = (launch.slurm or {}).get("nodes")
    return wanted if isinstance(wanted, int) and wanted > 1 else 1


def is_step(launch: LaunchFile) -> bool:
    """Whether srun starts the program."""
    return nodes(launch) > 1 or bool((launch.slurm or {}).get("container"))


def arguments(paths: BoxPaths, run: RunPaths, launch: LaunchFile) -> Tuple[str, ...]:
    """What the supervisor starts: the program, or srun with it."""
    image = (launch.slurm or {}).get("container")
    if not is_step(launch):
        return launch.argv
    words = [
        "srun",
        "--nodes=%d" % nodes(launch),
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        "--export=ALL",
    ]
    if os.environ.get("SLURM_CPUS_PER_TASK"):  # a step does not take it from its job since 22.05
        words += ["--cpus-per-task=" + os.environ["SLURM_CPUS_PER_TASK"]]
    if image:
        shared = [paths.root] + [each for each in [volatile_folder(run.run_id)] if os.path.isdir(each)]
        words += ["--container-image=%s" % image, "--container-workdir=" + run.code]
        words += ["--container-mounts=" + ",".join("%s:%s" % (each, each) for each in shared)]
    if nodes(launch) > 1:
        python = "python3" if image else sys.executable
        words += [python, "-I", "-S", "-c", RANK]
    return (*words, *launch.argv)


def variables(launch: LaunchFile, secret: Dict[str, str]) -> Dict[str, str]:
    """What torchrun and other launchers read of a run on several nodes (as ``payload_command.of_several_boxes``). The hub token lies in a
    file of this node, which the others do not have: they get the token itself."""
    if nodes(launch) == 1:
        return {}
    address, count = socket.gethostname(), str(nodes(launch))
    port = str(PORTS[0] + int(os.environ.get("SLURM_JOB_ID", "0")) % PORTS[1])
    found = {
        "PET_NNODES": count,
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": port,
        "NUM_NODES": count,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }
    if secrets.TOKEN_PATH in secret:
        with open(secret[secrets.TOKEN_PATH], encoding="utf-8") as file:
            found[secrets.TOKEN] = file.read()
    return found
