"""paramiko's transport, less some waits that wait for nothing, and less a race that made a login wait for its time limit."""

from __future__ import annotations

import threading
from typing import Any

import paramiko
from paramiko.auth_handler import AuthOnlyHandler

_Transport: Any = paramiko.transport.ServiceRequestingTransport  # its stubs say little of it
_Handler: Any = AuthOnlyHandler


class DirectTransport(_Transport):  # type: ignore[misc]
    """What every connection of gpurun's runs over."""

    # AES-GCM first, as for OpenSSH: encryption is most of what a log costs on a fast link.
    _preferred_ciphers = tuple(sorted(_Transport._preferred_ciphers, key=lambda name: "gcm" not in name))

    _asked = False
    _greeted = False

    def _check_banner(self) -> None:
        """Our proposal for the keys goes out behind our version, whether or not theirs has come (RFC 4253, 7.1).

        That is a round trip less where the other end, or a proxy before it, waits for ours with its own.
        """
        super()._send_kex_init()
        self._greeted = True
        super()._check_banner()

    def _send_kex_init(self) -> None:
        if self._greeted:  # paramiko's own first one, now
            self._greeted = False
            return
        super()._send_kex_init()

    def ensure_session(self) -> None:
        """The request for authentication follows the request for its service at once.

        Servers answer in order (RFC 4253, 10), and one that refuses the service disconnects. paramiko's own waits for the
        answer between them, a round trip, in steps of 0.1 s.
        """
        if not (self.active and self.initial_kex_done):
            raise paramiko.SSHException("there is no session to authenticate")
        if not self._asked:
            self._asked = True
            request = paramiko.Message()
            request.add_byte(paramiko.common.cMSG_SERVICE_REQUEST)
            request.add_string("ssh-userauth")
            self._send_message(request)
            self.auth_handler = self.get_auth_handler()

    def get_auth_handler(self) -> Any:
        return _AuthHandler(self)

    def _parse_global_request(self, message: paramiko.Message) -> None:
        """A word back at once: sshd announces its host keys right before it opens our channel.

        Nagle's algorithm keeps the second of two small packets until the first is acknowledged, and the kernel here puts
        that off for 40 ms in the hope of something to send along.
        """
        super()._parse_global_request(message)
        ignored = paramiko.Message()
        ignored.add_byte(paramiko.common.cMSG_IGNORE)
        ignored.add_string(b"")
        self._send_message(ignored)


class _AuthHandler(_Handler):  # type: ignore[misc]
    """Ready for the answer before the question is asked.

    paramiko makes the event that its answer sets after it has sent the request: on a fast link the answer may be there by
    then, and nobody is told of it before ``auth_timeout``.
    """

    _answered: threading.Event | None = None

    @property
    def auth_event(self) -> threading.Event | None:
        return self._answered

    @auth_event.setter
    def auth_event(self, event: threading.Event | None) -> None:
        """paramiko's own, which comes too late."""

    def send_auth_request(self, *arguments: Any, **options: Any) -> Any:
        self._answered = threading.Event()
        return super().send_auth_request(*arguments, **options)
