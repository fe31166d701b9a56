"""A run as a job for ``sbatch``: its options, its script, and its submission."""

import os
import shlex
import sys
from typing import Dict, List, Optional

from remote_payload.agent.box import gpus, slurm
from remote_payload.agent.box.files import write_whole
from remote_payload.agent.box.slurm import LISTED, SlurmError
from remote_payload.agent.run import spawn
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.run.slurm import files, sealed, step
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

WARNING = 300  # seconds before the end of the time limit at which Slurm sends TERM
# Fields of ``slurm:`` in a job file that are passed as they are → sbatch's options.
OPTIONS = {
    "partition": "--partition",
    "account": "--account",
    "qos": "--qos",
    "constraint": "--constraint",
    "reservation": "--reservation",
    "nodelist": "--nodelist",
    "exclude": "--exclude",
    "mem": "--mem",
    "mem_per_gpu": "--mem-per-gpu",
    "cpus_per_gpu": "--cpus-per-gpu",
    "cpus_per_task": "--cpus-per-task",
}
# The first line decides whether the job can start at all: what a login node calls its Python may not be on a compute node.
SCRIPT = """\
#!/bin/sh
python=%s
[ -x "$python" ] || python=python3
exec "$python" %s
"""


def arguments(run: RunPaths, launch: LaunchFile) -> List[str]:
    """The options of sbatch, and the script. On the command line they win over variables (SBATCH_…) of the user's own."""
    options = launch.slurm or {}
    words = ["--job-name=" + run.run_id, "--comment=gpurun", "--chdir=/"]
    words += ["--nodes=%d" % step.nodes(launch), "--ntasks-per-node=1"]
    words += ["--output=" + run.supervisor_log, "--open-mode=append", "--export=ALL"]
    words += ["--requeue" if options.get("requeue") else "--no-requeue"]
    words += ["--signal=B:TERM@%d" % warning(launch)]
    if launch.gpus:
        kind = options.get("gpu_type")
        whose = "--gpus" if step.nodes(launch) == 1 else "--gpus-per-node"
        words += ["%s=%s%d" % (whose, "%s:" % kind if kind else "", launch.gpus)]
    if launch.time_limit:
        words += ["--time=%d" % max(1, -(-int(launch.time_limit) // 60))]
    words += ["%s=%s" % (OPTIONS[name], options[name]) for name in OPTIONS if options.get(name) is not None]
    return [*words, files.script(run)]


def warning(launch: LaunchFile) -> int:
    """Seconds before the end at which the program is told to save: fewer for a short job, which would be told at its start."""
    return WARNING if not launch.time_limit else max(1, min(WARNING, int(launch.time_limit) // 3))


def submit(paths: BoxPaths, run: RunPaths, launch: LaunchFile, secrets: Dict[str, str]) -> None:
    """Gives the run to Slurm. Raises AgentError NotStarted where it is refused, StartUnconfirmed where nobody knows."""
    os.mkdir(run.slurm, 0o700)
    environment = dict(spawn.box_environment(), **gpus.stand_in(), **sealed.seal(run, secrets))
    command = spawn.agent_command("batch", paths.root, run.run_id)
    write_whole(files.script(run), (SCRIPT % (shlex.quote(sys.executable), shlex.join(command[1:]))).encode("utf-8"))
    try:
        number: Optional[int] = slurm.submit(arguments(run, launch), environment)
    except SlurmError as error:
        number = _accepted_all_the_same(run, str(error))
        if number is None:
            hint = "Correct slurm: in the job file, or ask the cluster's administrators."
            raise AgentError("NotStarted", "sbatch refused the job: %s" % error, hint) from None
    assert number is not None
    files.write_number(run, number)
    LISTED.forget()


def _accepted_all_the_same(run: RunPaths, said: str) -> Optional[int]:
    """A controller that was busy may have taken the job although sbatch has given up. Raises AgentError where it still does not answer."""
    try:
        return slurm.find_by_name(run.run_id)
    except SlurmError:
        hint = "It may have been submitted: gpurun status %s" % run.run_id
        raise AgentError("StartUnconfirmed", "Slurm does not answer: %s" % said, hint) from None
