"""Which start of a job has the run: never two at a time.

Slurm starts a job again where its node does not answer, although the program may live on there. The new start writes its number and
waits for the old one's heartbeat to end; the old one looks at the number with each heartbeat.
"""

import os
import socket
import time
from typing import Optional

from remote_payload.agent.run.slurm import files
from remote_payload.agent.run.slurm.files import FRESH, Attempt
from remote_payload.agent.wire.paths import RunPaths

LOOK_EVERY = 0.5  # seconds
PATIENCE = 600.0  # a clock of the file system that runs away must not keep the job waiting for ever


def this_attempt() -> Optional[Attempt]:
    """The start of a job that this process is the batch step of, None outside of one."""
    job, restarts = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")
    if not job.isdigit() or not restarts.isdigit():
        return None
    return Attempt(int(job), int(restarts), socket.gethostname())


def take_over(run: RunPaths, mine: Attempt) -> bool:
    """Whether this attempt has the run now; waits until an earlier one has let go of it. False for another job than the run's, and
    where a later attempt has come meanwhile. Raises OSError.
    """
    files.write_number(run, mine.job)  # the login node may have died before it could
    if files.read_number(run) != mine.job:
        return False
    files.write_owner(run, mine)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        age = files.heartbeat_age(run)
        if age is None or age >= FRESH:
            break
        time.sleep(LOOK_EVERY)
    if not has(run, mine):
        return False
    files.touch_heartbeat(run)
    return True


def has(run: RunPaths, mine: Attempt) -> bool:
    """Whether no later attempt has taken the run over."""
    return files.read_owner(run) in (mine, None)
