"""System tools that the box lacks: installed with apt where we are root, else reported with the command to type."""

import os
import shutil
from typing import Optional, Sequence

from remote_payload.agent.box.command import CommandFailed, Report, run
from remote_payload.agent.wire.errors import AgentError

# What gpurun may install: the tool, and the package of Debian and Ubuntu that has it.
PACKAGES = {
    "rsync": "rsync",
    "git": "git",
    "gcc": "gcc",
    "python3-venv": "python3-venv",
    "python3-pip": "python3-pip",
}
OTHER_INSTALLERS = {
    "dnf": "dnf install -y",
    "yum": "yum install -y",
    "apk": "apk add",
    "pacman": "pacman -S --noconfirm",
    "zypper": "zypper install -y",
}


def obstacle() -> Optional[str]:
    """Why gpurun cannot install anything here; None where it is root and has apt-get."""
    if shutil.which("apt-get") is None:
        other = _other_installer()
        return "the box has no apt-get" + (
            " (it has %s)" % other if other else ", nor another package manager known here"
        )
    return None if os.geteuid() == 0 else "only root may install it"


def _other_installer() -> Optional[str]:
    return next((program for program in OTHER_INSTALLERS if shutil.which(program)), None)


def install_command(packages: Sequence[str]) -> str:
    """What a person types on the box to install ``packages``."""
    prefix = "" if os.geteuid() == 0 else "sudo "
    if shutil.which("apt-get") is None:
        other = _other_installer()
        how = OTHER_INSTALLERS[other] if other else "install with the system's own package manager:"
        return "%s%s %s" % (prefix if other else "", how, " ".join(packages))
    return "%sapt-get update && %sapt-get install -y %s" % (prefix, prefix, " ".join(packages))


def install(packages: Sequence[str], report: Report) -> None:
    """Installs packages with apt-get. Raises AgentError BoxNotReady, with the last lines of apt-get, or where we may not install."""
    why = obstacle()
    if why is not None:
        message = "the box lacks %s, and %s" % (", ".join(packages), why)
        raise AgentError("BoxNotReady", message, "Type on the box: %s" % install_command(packages))
    # On many boxes another apt runs just after they boot: wait for its lock instead of failing.
    apt = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"]
    variables = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
    installation = [*apt, "install", "--no-install-recommends", *packages]
    try:
        run(installation, report, variables)
    except CommandFailed:  # most images ship without package lists
        try:
            run([*apt, "update"], report, variables)
            run(installation, report, variables)
        except CommandFailed as failed:
            message = "apt-get could not install %s:\n%s" % (", ".join(packages), failed.last_lines())
            raise AgentError("BoxNotReady", message, "Type on the box: %s" % install_command(packages)) from None
