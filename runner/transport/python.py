"""The one thing done on a box without the agent: installing the Python that the agent needs."""

from __future__ import annotations

import paramiko

from runner.domain.errors import BoxNotReady, LinkLost
from runner.domain.host import Host
from runner.domain.terminal import clean_lines
from runner.transport.dial import Dial
from runner.transport.link import FirstContact
from runner.transport.ssh import open_connection

LIMIT = 300.0  # seconds without a word from apt-get
NOT_ALLOWED = 97

# POSIX sh, with nothing in it that any login shell would read for itself.
COMMAND = (
    "exec /bin/sh -c '"
    'if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then exit 97; fi; '
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 2>&1'"
)


def install_python(host: Host, first_contact: FirstContact) -> None:
    """apt-get install python3, as root. Raises BoxNotReady where that is not allowed or fails, with what apt-get said."""
    connection = open_connection(host, Dial(host), first_contact)
    try:
        channel = connection.transport.open_session(timeout=15)
        channel.settimeout(LIMIT)
        channel.set_combine_stderr(True)
        channel.exec_command(COMMAND)
        said = b""
        while part := channel.recv(1 << 16):
            said = (said + part)[-4000:]
        code = channel.recv_exit_status()
    except (TimeoutError, paramiko.SSHException, EOFError, OSError) as error:
        raise LinkLost(f"the connection to {host} broke while Python was installed there", retryable=True) from error
    finally:
        connection.close()
    if code == NOT_ALLOWED:
        raise BoxNotReady(
            "the box has no Python ≥ 3.8, and this user may not install it (it takes root and apt-get)",
            meaning="Nothing was started there.",
            hint="On the box, type: sudo apt-get update && sudo apt-get install -y python3",
        )
    if code != 0:
        raise BoxNotReady(
            f"Python could not be installed on the box:\n{clean_lines(said.decode('utf-8', 'replace'), 1000)}",
            meaning="Nothing was started there.",
            hint="On the box, type: apt-get update && apt-get install -y python3",
        )
