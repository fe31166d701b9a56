"""The TCP connection to a host, opened in the background while the SSH libraries are still being loaded."""

from __future__ import annotations

import socket
import threading

from runner.domain.host import Host

CONNECT_TIMEOUT = 15  # seconds, for TCP and for the banner each


class PendingConnection:
    """A TCP connection that is being opened; none (``direct`` is False) where a jump host or a proxy command leads to the host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._opened: socket.socket | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._connect, name="tcp-connect", daemon=True)
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
            # Nagle's algorithm would delay each small packet by 40 ms.
            self._opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            self._error = error
