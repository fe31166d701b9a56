"""Slurm's own programs: which of them there are, what they say of this user's jobs, and what is asked of them.

Their output is read in formats that are named here. squeue(1), sbatch(1), scancel(1), scontrol(1), sacct(1).
"""

import os
import re
import shutil
import subprocess
import threading
import time
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

LIMIT = 20.0  # seconds; a controller that is busy answers late
ASK_EVERY = 10.0  # seconds between two requests for the list: the controller serves everybody
# The reason is the last: of all fields only that is any text.
LIST = "%i|%T|%S|%L|%N|%r"
# Slurm's names (job_state_string) for a job that has not begun.
PENDING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
GOING = ("RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "SUSPENDED", "STOPPED")
# Of these, those of a job that Slurm is not ending. SIGNALING stands there while Slurm itself delivers a signal: the one before the end
# of the time limit arrives in that state.
LASTING = ("RUNNING", "SIGNALING", "RESIZING", "SUSPENDED", "STOPPED")
JOB_ID = re.compile(r"[0-9]{1,10}")


class SlurmError(Exception):
    """One of Slurm's programs did not do what it was asked for; the text is what it said."""


class Job(NamedTuple):
    """A job as Slurm's list has it. ``starts``: when it began, or is expected to (epoch seconds); ``left``: seconds of its time limit."""

    number: int
    state: str
    starts: Optional[float]
    left: Optional[float]
    nodes: str
    reason: str


def is_there() -> bool:
    """Whether jobs can be submitted here."""
    return shutil.which("sbatch") is not None


def version() -> str:
    """Slurm's version as it prints it, "22.05.8". Raises SlurmError."""
    return _ask(["sbatch", "--version"]).strip().rpartition(" ")[2]


def partitions() -> List[Tuple[str, str]]:
    """Each partition of this user's, the default one first, and the GPUs of its nodes ("gpu:a100:8", "" for none). Raises SlurmError."""
    found: Dict[str, str] = {}
    lines = _ask(["sinfo", "--noheader", "--format=%P|%G"]).splitlines()
    for line in sorted(lines, key=lambda line: "*|" not in line):
        name, _, resources = line.partition("|")
        gpus = re.findall(r"gpu(?::[\w.-]+)*", resources)
        name = name.rstrip("*")
        found[name] = found.get(name) or (gpus[0] if gpus else "")
    return list(found.items())


def knows_containers() -> bool:
    """Whether pyxis adds its options to srun."""
    try:
        return "--container-image" in _ask(["srun", "--help"])
    except SlurmError:
        return False


def submit(arguments: Sequence[str], environment: Dict[str, str]) -> int:
    """The number of the new job. Raises SlurmError; the job may have been accepted all the same where the controller answered late."""
    answer = _ask(["sbatch", "--parsable", *arguments], environment)
    number = JOB_ID.match(answer.strip())
    if number is None:
        raise SlurmError("sbatch answered %.200r" % answer)
    return int(number.group())


def find_by_name(name: str) -> Optional[int]:
    """The job of this name of this user's, None where the list has none. Raises SlurmError."""
    words = ["squeue", "--noheader", "--states=all", "--user=%d" % os.getuid(), "--name=" + name, "--format=%i"]
    numbers = [line for line in _ask(words).split() if JOB_ID.fullmatch(line)]
    return int(numbers[-1]) if numbers else None


def jobs() -> Dict[int, Job]:
    """All jobs of this user that Slurm knows, those that ended a moment ago too, by number. Raises SlurmError."""
    words = ["squeue", "--noheader", "--states=all", "--user=%d" % os.getuid(), "--format=" + LIST]
    found = [_parse(line) for line in _ask(words).splitlines()]
    return {job.number: job for job in found if job is not None}


def job(number: int) -> Optional[Job]:
    """One job, None where the list does not have it. Raises SlurmError."""
    return jobs().get(number)


def signal(number: int, name: str) -> None:
    """Signals the batch step alone. Raises SlurmError."""
    _ask(["scancel", "--batch", "--signal=" + name, str(number)])


def signal_steps(number: int, name: str) -> None:
    """Signals every task of the job's steps, and not its batch step. Raises SlurmError."""
    _ask(["scancel", "--signal=" + name, str(number)])


def cancel(number: int) -> None:
    """Ends the job, or takes it out of the queue. Raises SlurmError."""
    _ask(["scancel", str(number)])


def requeue(number: int) -> None:
    """Puts the job into the queue again under the same number; from inside it too. Raises SlurmError."""
    _ask(["scontrol", "requeue", str(number)])


_recorded_at: Dict[int, float] = {}  # when the accounting was asked for a job


def recorded_end(number: int) -> Optional[str]:
    """How the accounting says that the job ended; None where there is no accounting, it does not know, or was asked a moment ago."""
    if shutil.which("sacct") is None or time.monotonic() - _recorded_at.get(number, -ASK_EVERY) < ASK_EVERY:
        return None
    _recorded_at[number] = time.monotonic()
    try:
        answer = _ask(["sacct", "--allocations", "--noheader", "--parsable2", "--format=State", "--jobs=%d" % number])
    except SlurmError:
        return None
    words = answer.split()  # "CANCELLED by 1000"
    return words[0] if words and words[0] not in PENDING + GOING else None


class Listed:
    """The list as it was at most ASK_EVERY seconds ago: one request to the controller serves all runs and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = -ASK_EVERY
        self._jobs: Dict[int, Job] = {}
        self._error: Optional[str] = None

    def jobs(self) -> Dict[int, Job]:
        """As the function of that name. Raises SlurmError."""
        with self._lock:
            if time.monotonic() - self._asked_at >= ASK_EVERY:
                try:
                    self._jobs, self._error = jobs(), None
                except SlurmError as error:
                    self._error = str(error)
                self._asked_at = time.monotonic()
            if self._error is not None:
                raise SlurmError(self._error)
            return self._jobs

    def forget(self) -> None:
        """The next question is asked anew: something was changed."""
        with self._lock:
            self._asked_at = -ASK_EVERY


LISTED = Listed()


def _parse(line: str) -> Optional[Job]:
    fields = line.strip().split("|", 5)
    if len(fields) != 6 or not JOB_ID.fullmatch(fields[0]):
        return None  # a part of an array, or of a heterogeneous job: not one of gpurun's
    number, state, starts, left, nodes, reason = fields
    return Job(int(number), state, _epoch(starts), _seconds(left), nodes[:100], reason[:100])


def _epoch(text: str) -> Optional[float]:
    return float(text) if text.isdigit() else None  # "N/A"


def _seconds(text: str) -> Optional[float]:
    """``1-02:03:04``, ``2:03:04``, ``3:04`` as seconds; None for INVALID, NOT_SET, UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _ask(words: Sequence[str], environment: Optional[Dict[str, str]] = None) -> str:
    """What a program prints. Raises SlurmError with what it complains of."""
    variables = {
        name: value for name, value in (environment or dict(os.environ)).items() if not name.startswith("SQUEUE_")
    }
    variables["SLURM_TIME_FORMAT"] = "%s"  # epoch seconds (strftime)
    try:
        done = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise SlurmError("%s does not answer in %d s" % (words[0], LIMIT)) from None
    except OSError as error:
        raise SlurmError("%s: %s" % (words[0], error.strerror)) from None
    if done.returncode != 0:
        said = "; ".join(done.stderr.decode("utf-8", "replace").split("\n")).strip("; ")
        raise SlurmError(said[:500] or "%s ended with status %d" % (words[0], done.returncode))
    return done.stdout.decode("utf-8", "replace")
