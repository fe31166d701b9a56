"""From a Host to a talking agent: connection, channel, handshake, session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from remote_payload.agent.wire.paths import BoxPaths
from runner.domain.host import Host
from runner.transport.agent import Agent
from runner.transport.dial import Dial
from runner.transport.known_hosts import FirstContact

_loading = threading.Lock()  # two threads that import paramiko at once find it half made: its modules import each other


def load() -> None:
    """Loads paramiko and fabric, or waits while another thread does: they take 0.1 s, as long as the first packets."""
    with _loading:
        import runner.transport.channel
        import runner.transport.ssh  # noqa: F401


@dataclass(frozen=True)
class Link:
    """One box, connected: where it is, its agent, and how far away it is (``rtt``, seconds)."""

    host: Host
    agent: Agent
    rtt: float

    @property
    def paths(self) -> BoxPaths:
        """Every path of gpurun's on the box."""
        return BoxPaths(self.agent.root)

    @property
    def slow(self) -> bool:
        """Whether compressing what is sent pays: over a real network it does, on loopback or a fast LAN it costs."""
        return self.rtt > 0.01


@contextmanager
def open_link(host: Host, first_contact: FirstContact) -> Iterator[Link]:
    """An agent on the box for the length of the block. Raises the errors of ``open_connection``, and BoxNotReady."""
    dialled = Dial(host)
    load()
    from runner.transport.channel import open_session
    from runner.transport.ssh import open_connection

    connection = open_connection(host, dialled, first_contact)
    try:
        session, distance = open_session(connection.transport, host)
        try:
            yield Link(host, Agent(session), distance)
        finally:
            session.close()
    finally:
        connection.close()
