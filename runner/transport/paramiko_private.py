"""Everything that depends on names of paramiko which its documentation does not promise; no other module may use one.

pyproject.toml bounds paramiko's version, and tests/unit/transport/test_paramiko_private.py lists these names and fails when one is gone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from typing import Any

import paramiko
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.transport import ServiceRequestingTransport

# Their stubs declare no private names.
_Transport: Any = ServiceRequestingTransport
_Handler: Any = AuthOnlyHandler


class DirectTransport(_Transport):  # type: ignore[misc]
    """paramiko's transport without three waits that nothing needs. Every connection of gpurun's runs over it."""

    # AES-GCM first, as OpenSSH orders them: encryption is most of what a log costs on a fast link.
    _preferred_ciphers = tuple(sorted(_Transport._preferred_ciphers, key=lambda name: "gcm" not in name))

    _requested_service = False
    _sent_key_exchange = False

    def _check_banner(self) -> None:
        """Sends our proposal for the key exchange right behind our version, whether or not theirs has come (RFC 4253, 7.1).

        That is a round trip less where the other end, or a proxy before it, sends its version only after ours.
        """
        super()._send_kex_init()
        self._sent_key_exchange = True
        super()._check_banner()

    def _send_kex_init(self) -> None:
        if self._sent_key_exchange:  # paramiko's own call after the banner: it is sent already
            self._sent_key_exchange = False
            return
        super()._send_kex_init()

    def ensure_session(self) -> None:
        """Requests the authentication service; the request for authentication follows at once.

        Servers answer in order (RFC 4253, 10), and one that refuses the service disconnects. paramiko's own method waits for the
        answer between them, a round trip, in steps of 0.1 s.
        """
        if not (self.active and self.initial_kex_done):
            raise paramiko.SSHException("there is no session to authenticate")
        if not self._requested_service:
            self._requested_service = True
            request = paramiko.Message()
            request.add_byte(paramiko.common.cMSG_SERVICE_REQUEST)
            request.add_string("ssh-userauth")
            self._send_message(request)
            self.auth_handler = self.get_auth_handler()

    def get_auth_handler(self) -> EarlyAuthHandler:
        return EarlyAuthHandler(self)

    def _parse_global_request(self, message: paramiko.Message) -> None:
        """Answers with an empty message: sshd announces its host keys right before it opens our channel.

        Nagle's algorithm holds the second of two small packets until the first is acknowledged, and the kernel here delays
        an acknowledgement for 40 ms unless it can travel with data.
        """
        super()._parse_global_request(message)
        ignored = paramiko.Message()
        ignored.add_byte(paramiko.common.cMSG_IGNORE)
        ignored.add_string(b"")
        self._send_message(ignored)


class EarlyAuthHandler(_Handler):  # type: ignore[misc]
    """Makes the event for the answer before the request is sent.

    paramiko makes it after that: on a fast link the answer may have come by then, and the login waits for ``auth_timeout``.
    """

    _answered: threading.Event | None = None

    @property
    def auth_event(self) -> threading.Event | None:
        return self._answered

    @auth_event.setter
    def auth_event(self, event: threading.Event | None) -> None:
        """Ignores paramiko's own event, which comes too late."""

    def send_auth_request(self, *arguments: Any, **options: Any) -> list[str]:
        self._answered = threading.Event()
        answer: list[str] = super().send_auth_request(*arguments, **options)
        return answer


# What we offer, the preferred algorithm first, by the word with which paramiko's IncompatiblePeer names the kind.
OFFERED: dict[str, tuple[str, ...]] = {
    "kex": tuple(DirectTransport._preferred_kex),
    "cipher": tuple(DirectTransport._preferred_ciphers),
    "mac": tuple(DirectTransport._preferred_macs),
    "host key": tuple(DirectTransport._preferred_keys),
}


def execute(channel: paramiko.Channel, command: str) -> None:
    """Asks for the command to be run and does not wait for a reply, as ``Channel.exec_command`` does for a round trip.

    A refusal shows as the end of the channel (RFC 4254, 6.5).
    """
    request = paramiko.Message()
    request.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    request.add_int(channel.remote_chanid)
    request.add_string("exec")
    request.add_boolean(False)
    request.add_string(command)
    transport: Any = channel.transport
    transport._send_user_message(request)


def agent_keys(connected: socket.socket) -> Iterable[paramiko.AgentKey]:
    """The keys of the ssh agent behind this socket; ``paramiko.Agent`` reads SSH_AUTH_SOCK and nothing else.

    Raises OSError or SSHException where no agent answers.
    """
    agent: Any = paramiko.agent.AgentSSH()
    agent._connect(connected)
    keys: tuple[paramiko.AgentKey, ...] = agent.get_keys()
    return keys
