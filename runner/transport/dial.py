"""The first packet: TCP's handshake, under way while everything else is still being loaded."""

from __future__ import annotations

import socket
import threading

from runner.domain.host import Host

CONNECT_TIMEOUT = 15  # seconds, for TCP and for the banner each


class Dial:
    """A TCP connection to a host, being opened from now on; to nobody where a jump host or a proxy command leads there."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._opened: socket.socket | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._connect, name="dial", daemon=True)
        self.direct = not (host.jumps or host.proxy_command)
        if self.direct:
            self._thread.start()

    def result(self) -> socket.socket:
        """The connection. Raises OSError (TimeoutError after CONNECT_TIMEOUT)."""
        self._thread.join()
        if self._opened is None:
            raise self._error or OSError("not connected")
        return self._opened

    def _connect(self) -> None:
        try:
            self._opened = socket.create_connection((self._host.hostname, self._host.port), timeout=CONNECT_TIMEOUT)
            # Without Nagle's delay, which costs small packets 40 ms each on a quiet link.
            self._opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            self._error = error
