"""Opens a connection to a host and an agent on it: connection, channel, session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from remote_payload.agent.wire.paths import BoxPaths
from runner.domain.host import Host
from runner.transport.agent import Agent
from runner.transport.known_hosts import FirstContact
from runner.transport.tcp import PendingConnection

_loading = (
    threading.Lock()
)  # paramiko's modules import each other: two threads that import it at once can find it half loaded


def load() -> None:
    """Imports paramiko and fabric, or waits while another thread does: that takes 0.1 s, in which the first packets travel."""
    with _loading:
        import runner.transport.channel
        import runner.transport.ssh  # noqa: F401


@dataclass(frozen=True)
class Link:
    """A connected box: its host, its agent, and the time of a round trip to it (``rtt``, seconds)."""

    host: Host
    agent: Agent
    rtt: float

    @property
    def paths(self) -> BoxPaths:
        """The paths of all that gpurun has on the box."""
        return BoxPaths(self.agent.root)

    @property
    def slow(self) -> bool:
        """Whether compression saves time: it does over a real network, and costs time on loopback or a fast LAN."""
        return self.rtt > 0.01


@contextmanager
def open_link(host: Host, first_contact: FirstContact) -> Iterator[Link]:
    """An agent on the box for the length of the block. Raises the errors of ``open_connection``, and BoxNotReady."""
    tcp = PendingConnection(host)
    load()
    from runner.transport.channel import open_session
    from runner.transport.ssh import open_connection

    connection = open_connection(host, tcp, first_contact)
    try:
        session, distance = open_session(connection.transport, host)
        try:
            yield Link(host, Agent(session), distance)
        finally:
            session.close()
    finally:
        connection.close()
