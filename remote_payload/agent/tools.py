"""What the box lacks of the system's own tools: installed with apt where we are root, else named with the command to type."""

import os
import shutil
from typing import Any, Dict, Sequence

from remote_payload.agent.command import CommandFailed, Report, run
from remote_payload.agent.request import AgentError, Request

# What gpurun may ask for: the tool, and the package of Debian and Ubuntu that brings it.
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


def install_tools(request: Request) -> Dict[str, Any]:
    """Verb: sees that ``tools`` are there. Gives ``{installed, present}``; progress ``{line}``.

    Raises AgentError BoxNotReady with the command to type where it may not install, or could not.
    """
    asked = request.args.get("tools")
    if not isinstance(asked, list) or not all(isinstance(tool, str) and tool in PACKAGES for tool in asked):
        raise AgentError("GpurunError", "no such tool to install: %.200r" % (asked,))
    absent = [tool for tool in asked if shutil.which(tool) is None]
    if absent:
        install([PACKAGES[tool] for tool in absent], lambda line: request.progress({"line": line}))
    still_absent = [tool for tool in absent if not tool.startswith("python3-") and shutil.which(tool) is None]
    if still_absent:
        raise AgentError("BoxNotReady", "installed, but still not found on the box: %s" % ", ".join(still_absent))
    return {"installed": absent, "present": [tool for tool in asked if tool not in absent]}


def can_install() -> bool:
    """Whether we are root and apt-get is there."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_command(packages: Sequence[str]) -> str:
    """What a person types on the box to install ``packages``."""
    prefix = "" if os.geteuid() == 0 else "sudo "
    for program, command in OTHER_INSTALLERS.items():
        if shutil.which(program) and not shutil.which("apt-get"):
            return "%s%s %s" % (prefix, command, " ".join(packages))
    return "%sapt-get update && %sapt-get install -y %s" % (prefix, prefix, " ".join(packages))


def install(packages: Sequence[str], report: Report) -> None:
    """Installs packages with apt-get. Raises AgentError BoxNotReady, with the last lines, or where we may not."""
    if not can_install():
        why = "only root may install it" if shutil.which("apt-get") else "it has no apt-get"
        message = "the box lacks %s, and %s" % (", ".join(packages), why)
        raise AgentError("BoxNotReady", message, "Type on the box: %s" % install_command(packages))
    # Another apt runs on many boxes just after they boot: wait for its lock instead of failing.
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
