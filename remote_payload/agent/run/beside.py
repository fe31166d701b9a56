"""A program beside a run: in the run's folder, with its variables and GPUs, and never one of its processes."""

import base64
import json
import os
import pwd
import sys
from typing import Dict, List

from remote_payload.agent.run import spawn, state
from remote_payload.agent.run.order import LaunchFile, read_launch
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

# With the run's cookie, `stop` and `status` would count this process as one of the run; and it must not write to the run's events.
NOT_OURS = ("GPURUN_RUN_ID", "GPURUN_EVENTS", "GPURUN_RESUME")
NO_RUN = "-"


def environment(run: RunPaths, launched: LaunchFile) -> Dict[str, str]:
    """The variables of a process beside the run: those of the box and of ``launch.json``, and the run's GPUs. No secrets."""
    found = dict(spawn.box_environment(), **launched.environment)
    found["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in state.status_of(run)["gpus"])
    return {name: value for name, value in found.items() if name not in NOT_OURS}


def become(root: str, run_id: str, words: str) -> int:
    """Replaces this process by a program: ``words`` are its argv, as JSON in base64; without words the user's own shell.

    ``run_id`` is NO_RUN for one in the home folder, with the variables of the box alone. Gives the exit status where that fails, as a
    shell would: 127 for a program that is not there.
    """
    folder, variables = os.path.expanduser("~"), spawn.box_environment()
    if run_id != NO_RUN:
        run = BoxPaths(root).run(run_id)
        launched = read_launch(run)
        if launched is None:
            print("gpurun: run %s has no folder on the box, or never started" % run_id, file=sys.stderr)
            return spawn.NOT_EXECUTABLE
        folder, variables = run.code, environment(run, launched)
    argv: List[str] = json.loads(base64.b64decode(words)) or [os.environ.get("SHELL") or _login_shell()]
    try:
        os.chdir(folder)
        os.execvpe(argv[0], argv, variables)
    except OSError as failure:
        status, line = spawn.refusal(failure, argv[0], variables)
        print(line, file=sys.stderr)
        return status


def _login_shell() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    except KeyError:  # a user id that the container has no name for
        return "/bin/sh"
