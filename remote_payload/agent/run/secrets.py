"""The secrets of a run. The hub token is one file with mode 0600 in a memory-backed folder while the run lasts. Other secrets go from the
laptop's request through the supervisor's stdin into the payload's environment and are written to no file.

When a run is over the file is removed: by its supervisor, by ``wipe``, or by the next agent's ``sweep`` if the supervisor was killed.
"""

import os
import time
from typing import Dict, List

from remote_payload.agent.box import locks
from remote_payload.agent.box.files import remove_quietly, write_whole
from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import alive
from remote_payload.agent.run.slurm import files as slurm_files
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, check_run_id, volatile_folder

TOKEN = "HF_TOKEN"
TOKEN_PATH = "HF_TOKEN_PATH"  # huggingface_hub reads the token from this file
TOKEN_FILE = "hf_token"
OTHER_ROOT_AGE = 3600.0  # seconds
NOT_SECRET = ("stop", "exit")  # files of the run's volatile folder


def place(run_id: str, secrets: Dict[str, str]) -> Dict[str, str]:
    """Writes the hub token, if there is one. Gives the variables for the payload's environment. Raises OSError."""
    variables = {name: value for name, value in secrets.items() if name != TOKEN}
    if secrets.get(TOKEN):
        path = os.path.join(locks.make_volatile(run_id), TOKEN_FILE)
        write_whole(path, secrets[TOKEN].encode("utf-8"))
        variables[TOKEN_PATH] = path
    return variables


def remove(run: RunPaths) -> List[str]:
    """Removes the run's secrets, those that wait for a compute node of Slurm too. Gives the paths that could not be removed."""
    for path in _paths_of(run):
        try:
            _overwrite(path)
            os.unlink(path)
        except OSError:
            pass
    return _paths_of(run)


def remove_here(run: RunPaths) -> None:
    """Removes those of this machine: the run goes on elsewhere."""
    for path in _paths_of(run, here=True):
        remove_quietly(path)


def _paths_of(run: RunPaths, here: bool = False) -> List[str]:
    folder = volatile_folder(run.run_id)
    sealed = [] if here or not os.path.lexists(slurm_files.secrets(run)) else [slurm_files.secrets(run)]
    return [os.path.join(folder, name) for name in _secret_names(folder)] + sealed


def sweep(paths: BoxPaths) -> None:
    """At every start of an agent: removes the secrets of runs that ended with their supervisor, or with their container.

    A run that is not below this root may belong to another root and be about to start: its secrets stay for an hour.
    """
    try:
        names = [name for name in os.listdir(volatile_folder()) if _is_run(name)]
    except OSError:
        names = []
    box = alive.Box()
    for run in map(paths.run, names):
        ours = os.path.isdir(run.folder) or _age(volatile_folder(run.run_id)) > OTHER_ROOT_AGE
        if ours and not alive.of(run, box).anything:
            remove(run)
            forget(run)
    for run in runs_newest_first(paths):
        if os.path.exists(slurm_files.secrets(run)) and not alive.of(run, box).anything:
            remove(run)


def _age(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return 0.0


def _is_run(name: str) -> bool:
    try:
        return bool(check_run_id(name)) and os.path.isdir(volatile_folder(name))
    except ValueError:
        return False


def _secret_names(folder: str) -> List[str]:
    try:
        return sorted(set(os.listdir(folder)) - set(NOT_SECRET))
    except OSError:
        return []


def _overwrite(path: str) -> None:
    """Overwrites the content before it is freed, for a folder on a disk (where there is no /dev/shm)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, b"\0" * os.fstat(descriptor).st_size, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(run: RunPaths) -> None:
    """Removes the volatile folder of a run that is over, unless it holds the only copy of the exit record.

    A launch takes the lock before it makes the run's folder: without that, the volatile folder may be about to be used.
    """
    try:
        if os.path.isdir(run.folder) and "exit" not in os.listdir(volatile_folder(run.run_id)):
            descriptor = locks.take_run(run)
            if descriptor is not None:
                remove_quietly(os.path.join(volatile_folder(run.run_id), "stop"))
                locks.leave_run(run, descriptor)
    except OSError:
        pass
