"""Installs the Python that the agent needs: the only command that gpurun runs on a box without the agent."""

from __future__ import annotations

import paramiko

from runner.domain.errors import BoxNotReady, LinkLost
from runner.domain.host import Host
from runner.domain.terminal import clean_lines
from runner.transport.known_hosts import FirstContact
from runner.transport.ssh import open_connection
from runner.transport.tcp import PendingConnection

LIMIT = 300.0  # seconds without output of apt-get
NO_APT, NOT_ROOT = 96, 97

# POSIX sh, without characters that any login shell would interpret.
ALLOWED = f'command -v apt-get >/dev/null 2>&1 || exit {NO_APT}; if [ "$(id -u)" != 0 ]; then exit {NOT_ROOT}; fi; '
INSTALL = (
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 2>&1"
)
_OBSTACLES = {
    NO_APT: (
        "it has no apt-get, which gpurun would use",
        "Install python3 (3.8 or newer) there with its own package manager.",
    ),
    NOT_ROOT: ("only root may install it", "On the box, type: sudo apt-get update && sudo apt-get install -y python3"),
}


def install_python(host: Host, first_contact: FirstContact) -> None:
    """Runs apt-get install python3, as root. Raises BoxNotReady where that is not allowed or fails, with apt-get's output."""
    code, output = _run(host, first_contact, ALLOWED + INSTALL)
    _must_be_allowed(code)
    if code != 0:
        raise BoxNotReady(
            f"Python could not be installed on the box:\n{clean_lines(output.decode('utf-8', 'replace'), 1000)}",
            meaning="Nothing was started there.",
            hint="On the box, type: apt-get update && apt-get install -y python3",
        )


def may_install_python(host: Host, first_contact: FirstContact) -> None:
    """Changes nothing. Raises BoxNotReady where ``install_python`` would not be allowed."""
    code, _ = _run(host, first_contact, ALLOWED + "exit 0")
    _must_be_allowed(code)


def _must_be_allowed(code: int) -> None:
    if code in _OBSTACLES:
        why, hint = _OBSTACLES[code]
        raise BoxNotReady(f"the box has no Python ≥ 3.8, and {why}", meaning="Nothing was started there.", hint=hint)


def _run(host: Host, first_contact: FirstContact, script: str) -> tuple[int, bytes]:
    """The exit status of a line of sh, and the end of its output."""
    connection = open_connection(host, PendingConnection(host), first_contact)
    try:
        channel = connection.transport.open_session(timeout=15)
        channel.settimeout(LIMIT)
        channel.set_combine_stderr(True)
        channel.exec_command(f"exec /bin/sh -c '{script}'")
        output = b""
        while part := channel.recv(1 << 16):
            output = (output + part)[-4000:]
        return channel.recv_exit_status(), output
    except (TimeoutError, paramiko.SSHException, EOFError, OSError) as error:
        raise LinkLost(f"the connection to {host} broke while Python was installed there", retryable=True) from error
    finally:
        connection.close()
