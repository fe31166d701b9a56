"""Every path of gpurun's on the laptop, below ``GPURUN_HOME`` (default ``~/.gpurun``)."""

from __future__ import annotations

import os
from pathlib import Path

from remote_payload.agent.wire.paths import check_run_id


def home() -> Path:
    """``GPURUN_HOME``, absolute."""
    return Path(os.environ.get("GPURUN_HOME") or Path.home() / ".gpurun").expanduser().absolute()


def runs() -> Path:
    return home() / "runs"


def run_folder(run_id: str) -> Path:
    """One run's record, log, events and (by default) fetched files."""
    return runs() / check_run_id(run_id)


def kept_code() -> Path:
    """Copies of the code that runs had, one folder a digest."""
    return home() / "code"


def known_hosts() -> Path:
    """The pinned host keys."""
    return home() / "known_hosts"


def hosts_file() -> Path:
    """What is remembered of hosts: when seen, fingerprint, volume."""
    return home() / "hosts.json"


def ssh_configs() -> Path:
    """The configuration files written for OpenSSH, one a host."""
    return home() / "ssh"


def local_box() -> Path:
    """The embedded box: its sshd's files, and the home folder of the runs on it."""
    return home() / "local-box"
