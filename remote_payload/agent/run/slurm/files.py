"""The files of a run that is a Slurm job, in ``slurm/`` of its folder: read and written on the login node and on compute nodes.

Ages are by the clock of the file system itself, since the nodes' clocks differ: the time that it gives to a new file, less the time of
the file that is asked about. A file is opened for it, because NFS clients answer ``stat`` from memory for up to a minute.
"""

import os
import posixpath
from typing import Any, Dict, NamedTuple, Optional

from remote_payload.agent.box.files import disk_clock, read_json, remove_quietly, write_json, write_new
from remote_payload.agent.wire.fields import is_whole
from remote_payload.agent.wire.paths import RunPaths

BEAT_EVERY = 10.0  # seconds between two touches of the heartbeat
FRESH = 60.0  # seconds for which a heartbeat proves that the run lives


class Attempt(NamedTuple):
    """One start of a job's batch step: Slurm counts a job's restarts."""

    job: int
    restarts: int
    node: str


def is_slurm(run: RunPaths) -> bool:
    """Whether the run is a Slurm job."""
    return os.path.isdir(run.slurm)


def _path(run: RunPaths, name: str) -> str:
    return posixpath.join(run.slurm, name)


def script(run: RunPaths) -> str:
    """The path of what sbatch starts."""
    return _path(run, "script")


def secrets(run: RunPaths) -> str:
    """The path of the encrypted secrets."""
    return _path(run, "secrets")


# The job's number: written by whoever knows it first, the login node or the job itself.


def write_number(run: RunPaths, number: int) -> None:
    """Raises OSError. What is there already stays."""
    try:
        write_new(_path(run, "job.json"), b'{"number":%d}' % number)
    except FileExistsError:
        pass


def read_number(run: RunPaths) -> Optional[int]:
    """The number of the run's job, None where it is not written down."""
    number: Any = (read_json(_path(run, "job.json")) or {}).get("number")
    return number if is_whole(number) and 0 < number < 1 << 32 else None


# The supervisor's sign of life, and which attempt of the job has the run.


def touch_heartbeat(run: RunPaths) -> None:
    """Raises OSError."""
    path = _path(run, "heartbeat")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.close(descriptor)
    os.utime(path)  # the server's clock


def remove_heartbeat(run: RunPaths) -> None:
    """The supervisor ends."""
    remove_quietly(_path(run, "heartbeat"))


def heartbeat_age(run: RunPaths) -> Optional[float]:
    """Seconds since the supervisor's last sign of life, None without one."""
    return _age(run, "heartbeat")


def write_owner(run: RunPaths, attempt: Attempt) -> None:
    """Raises OSError."""
    write_json(_path(run, "owner"), attempt._asdict())


def read_owner(run: RunPaths) -> Optional[Attempt]:
    """The attempt that began last, None where none has."""
    value: Dict[str, Any] = read_json(_path(run, "owner")) or {}
    job, restarts, node = value.get("job"), value.get("restarts"), value.get("node")
    usable = is_whole(job) and is_whole(restarts) and isinstance(node, str)
    return Attempt(int(job or 0), int(restarts or 0), str(node)) if usable else None


# Notes. Each is a file: that it is there says it, and its age since when.


def note(run: RunPaths, name: str, **values: object) -> None:
    """Makes the note ``name``, unless it is there. A disk that takes none loses it."""
    try:
        if not os.path.exists(_path(run, name)):
            write_json(_path(run, name), values)
    except OSError:
        pass


def forget(run: RunPaths, name: str) -> None:
    """Removes a note."""
    if os.path.lexists(_path(run, name)):
        remove_quietly(_path(run, name))


def is_noted(run: RunPaths, name: str) -> bool:
    """Whether there is such a note."""
    return os.path.exists(_path(run, name))


def noted_for(run: RunPaths, name: str) -> Optional[float]:
    """How old the note is in seconds, None where there is none."""
    return _age(run, name)


def noted_text(run: RunPaths, name: str, field: str) -> Optional[str]:
    """A text of a note."""
    value = (read_json(_path(run, name)) or {}).get(field)
    return value if isinstance(value, str) else None


def noted_number(run: RunPaths, name: str, field: str) -> Optional[float]:
    """A number of a note."""
    value = (read_json(_path(run, name)) or {}).get(field)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _age(run: RunPaths, name: str) -> Optional[float]:
    try:
        descriptor = os.open(_path(run, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return max(0.0, disk_clock(run.slurm) - os.fstat(descriptor).st_mtime)
    finally:
        os.close(descriptor)
