"""Whether a box still answers at its address."""

from __future__ import annotations

from typing import NoReturn

from runner.domain.errors import ConnectFailed, HostError, HostKeyChanged, Unanswered
from runner.domain.host import Host
from runner.transport.link import load
from runner.transport.tcp import PendingConnection


def answers(host: Host) -> bool:
    """Whether an SSH server with the pinned key of this host answers there. Nothing runs on it, and no key is pinned.

    A server with another key is another box, which got the address. One that has the key and refuses the login still answers.
    """
    tcp = PendingConnection(host)
    load()
    from runner.transport.ssh import open_connection

    try:
        open_connection(host, tcp, _refuse).close()
    except (HostKeyChanged, _NotPinned):
        return False
    except ConnectFailed as error:
        return isinstance(error, Unanswered)
    except HostError:
        return True
    return True


class _NotPinned(HostError):
    """The key is not known here: it is not the box that was connected before."""


def _refuse(host: Host, fingerprint: str) -> NoReturn:
    raise _NotPinned(f"{host.known_as} has a key that is not known here: {fingerprint}")
