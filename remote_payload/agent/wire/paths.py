"""Every path on the box, relative to one root (a contract with users: ARCHITECTURE.md, "On the box").

Standard library only, Python 3.8: the agent runs on whatever interpreter a rented container has, and the laptop
imports the same module so that both sides spell a path once.
"""

import os
import posixpath
import re
from typing import Optional

ROOT_NAME = ".gpurun-box"
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,47}-\d{8}-\d{6}-[0-9a-f]{4}")
SHA256 = re.compile(r"[0-9a-f]{64}")
KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
IDENTITY = re.compile(r"[0-9a-f]{32}")  # of a root: made once, at random
# One attempt of a push: the laptop's clock in seconds when it began, and a random part.
ATTEMPT = re.compile(r"([0-9]{1,12})-[0-9a-f]{8}")
# Old versions of rsync pass remote paths to a shell: only these characters are used, none of which is special to a shell.
SAFE_PATH = re.compile(r"[A-Za-z0-9._/@+-]+")


def check_run_id(run_id: object) -> str:
    """The run id itself, or ValueError when it could be anything but one folder's name."""
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise ValueError("not a run id: %r" % (run_id,))
    return run_id


class BoxPaths:
    """The tree below ``$ROOT``; pure string work (POSIX), so that the laptop can use it for a box it only talks to."""

    def __init__(self, root: str) -> None:
        if not root.startswith("/") or not SAFE_PATH.fullmatch(root):
            raise ValueError("unusable root on the box: %r" % (root,))
        self.root = root

    def _join(self, *parts: str) -> str:
        return posixpath.join(self.root, *parts)

    def agent(self, sha256: str) -> str:
        return self._join("agent", sha256 + ".pyz")

    def payload(self, sha256: str) -> str:
        return self._join("payload", sha256)

    def env(self, key: str) -> str:
        return self._join("envs", key)

    def data(self, key: str) -> str:
        return self._join("data", key)

    def incoming(self, name: str) -> str:
        """Where rsync writes before the launch; never a final name."""
        return self._join("incoming", name)

    @property
    def hf_home(self) -> str:
        return self._join("cache", "hf")

    @property
    def identity(self) -> str:
        """A file with a random number that was made with the root: the same box at another address has the same."""
        return self._join("identity")

    @property
    def runs(self) -> str:
        return self._join("runs")

    @property
    def gpus(self) -> str:
        """A file for each GPU on which a run failed with a device error."""
        return self._join("gpus")

    @property
    def locks(self) -> str:
        return self._join("locks")

    def run(self, run_id: str) -> "RunPaths":
        return RunPaths(posixpath.join(self.runs, check_run_id(run_id)))


class RunPaths:
    """One run's folder, ``$ROOT/runs/<run id>`` (mode 0700)."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.run_id = posixpath.basename(folder)
        self.job = posixpath.join(folder, "job.json")  # the resolved job, no secrets
        self.launch = posixpath.join(folder, "launch.json")  # argv, environment and limits, no secrets
        self.code = posixpath.join(folder, "code")  # the payload's working directory
        self.snapshot = posixpath.join(folder, "snapshot.json")  # digest of code/ as pushed
        self.gpus = posixpath.join(
            folder, "gpus.json"
        )  # how many GPUs it wants, its place in the queue, those it was given
        self.owner = posixpath.join(folder, "owner.json")
        # Beside the runs: it is taken before the folder is made, and stays when the folder is removed.
        self.lock = posixpath.join(posixpath.dirname(posixpath.dirname(folder)), "locks", self.run_id)
        self.grace = posixpath.join(folder, "grace.json")  # the payload's: how long it needs between TERM and KILL
        self.exit_slot = posixpath.join(folder, "exit.slot")
        self.log = posixpath.join(folder, "log")
        self.events = posixpath.join(folder, "events.jsonl")
        self.outputs = posixpath.join(folder, "outputs")
        self.manifest = posixpath.join(folder, "manifest.json")
        self.removed = posixpath.join(folder, "removed.json")  # outputs that keep_finished removed, and why
        self.supervisor_log = posixpath.join(folder, "supervisor.log")
        self.slurm = posixpath.join(folder, "slurm")  # a folder, of a run that is a Slurm job


def volatile_folder(run_id: Optional[str] = None) -> str:
    """The folder for secrets: memory-backed, so that a restart of the container removes them. It may be emptied at any moment."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else "/tmp"
    folder = posixpath.join(base, "gpurun-%d" % os.getuid())
    return folder if run_id is None else posixpath.join(folder, check_run_id(run_id))
