"""Everything that can go wrong, as one tree. Caught once, in ``runner/cli/errors.py``.

A message says what happened; ``meaning`` what it means for the run on the box; ``hint`` the next thing to type.
"""

from __future__ import annotations

# What the exit codes of gpurun mean. 130 is Ctrl-C's (128 + SIGINT).
EXIT_CODES = {
    0: "done",
    1: "unexpected",
    2: "job file or arguments",
    3: "host",
    4: "transfer",
    5: "launch",
    6: "artifact or smoke test",
    10: "the run failed",
    11: "cancelled",
    12: "lost",
    124: "wait had too little time",
    130: "Ctrl-C",
}


class GpurunError(Exception):
    """What every error here is: an exit code, a meaning for the run, a next step."""

    exit_code = 1

    def __init__(self, message: str, *, meaning: str = "", hint: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.meaning = meaning
        self.hint = hint
        self.retryable = retryable


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a message about the runs of the command. The message of a plain KeyboardInterrupt may be Python's own."""


class UserError(GpurunError):
    """The job file or the arguments."""

    exit_code = 2


class JobFileError(UserError):
    """One or more problems of job files; each line of the message is ``path:line:col: what``."""


class UnknownRun(UserError):
    """No such run in this machine's records."""


class StateError(UserError):
    """A damaged file of gpurun's own on this machine; the message names it."""


class DiskTrouble(GpurunError):
    """A file of this machine that cannot be written: the disk is full, or permission is missing."""


class HostError(GpurunError):
    """The host: unreachable, refused, key changed, not ready."""

    exit_code = 3


class ConnectFailed(HostError):
    """No connection, or it was lost and did not come back."""


class LinkLost(ConnectFailed):
    """A connection broke while it was open or being opened: another try may succeed."""


class Unanswered(ConnectFailed):
    """The agent lives, and does not answer a request in time."""


class AbsurdAnswer(HostError):
    """The box reported an impossible value, or sent data that no agent sends."""


class AuthFailed(HostError):
    """The host answered and refused this key or user."""


class HostKeyChanged(HostError):
    """The host is not the one that was pinned. Never retried."""


class BoxNotReady(HostError):
    """The box lacks something: Python, rsync, a driver, disk."""


class PythonMissing(BoxNotReady):
    """No Python that the agent could run on; ``gpurun submit`` installs one where it may."""


class HubAccessDenied(HostError):
    """The hub refuses a model that the job names, or the token itself."""


class TransferError(GpurunError):
    """Copying files, in either direction."""

    exit_code = 4


class RsyncMissing(TransferError):
    """No rsync on one of the two ends."""


class TransferInterrupted(TransferError):
    """The link died or the peer froze; the next try goes on from there."""


class TransferFailed(TransferError):
    """rsync failed for a reason that another try does not remove."""


class FilesChanged(TransferFailed):
    """Files changed or went away while they were copied."""


class PushDiffers(TransferError):
    """The files that arrived on the box differ from those that were sent: they are pushed again."""


class LaunchError(GpurunError):
    """The payload did not start."""

    exit_code = 5


class NotStarted(LaunchError):
    """Nothing was started."""


class StartedElsewhere(NotStarted):
    """Another gpurun starts the run on another host."""


class StartUnconfirmed(LaunchError):
    """The box did not confirm the start in time: the run may live all the same."""


class GpuBusy(LaunchError):
    """Another run, or somebody's process, holds the GPUs asked for."""


class EnvironmentFailed(LaunchError):
    """The Python environment could not be built on the box."""


class ArtifactError(GpurunError):
    """Fetching a run's files, the smoke test of a fetched model, or its evaluation."""

    exit_code = 6


class BeingFetched(ArtifactError):
    """Another gpurun on this machine is fetching the run."""


class ManifestMissing(ArtifactError):
    """The box has no manifest of the run's outputs (yet)."""


class ChecksumMismatch(ArtifactError):
    """A file differs from its size or sha256 in the manifest."""


class SmokeTestFailed(ArtifactError):
    """The fetched model does not load, or does not predict here what it predicted on the box."""


class WorseThan(ArtifactError):
    """A model is worse than the one that it is held against, by more than the tolerance."""


class RunFailed(GpurunError):
    """The payload ended with an error."""

    exit_code = 10


class RunCancelled(GpurunError):
    """The run was stopped by its owner."""

    exit_code = 11


class RunLost(GpurunError):
    """Nobody can say how the run ended."""

    exit_code = 12


class StillGoing(GpurunError):
    """``gpurun wait --timeout``: the time is up, and the run has not come so far. The code is that of timeout(1)."""

    exit_code = 124
