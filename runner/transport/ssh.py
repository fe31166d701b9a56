"""Opens the one SSH connection: fabric, with its trusting defaults replaced before the first packet.

Fabric installs ``AutoAddPolicy``, loads no known_hosts, and reads the user's ssh config with a parser that ignores
``Include``. Here the Host was resolved by OpenSSH, the key is checked against gpurun's pins (gateways too), nothing is forwarded, and
keys are offered in the order that OpenSSH would use.
"""

from __future__ import annotations

import base64
import logging
import re
import shlex
import socket
import time
from collections.abc import Iterator
from typing import Any

import fabric
import paramiko
from paramiko.auth_strategy import AuthSource, AuthStrategy, InMemoryPrivateKey

from runner.domain import places
from runner.domain.errors import AuthFailed, ConnectFailed, HostError, LinkLost
from runner.domain.host import Host
from runner.domain.terminal import clean
from runner.transport import known_hosts
from runner.transport.dial import CONNECT_TIMEOUT, Dial
from runner.transport.direct_transport import DirectTransport
from runner.transport.link import FirstContact

# paramiko logs what a peer sent, and its own tracebacks; without a handler of its own that lands on the user's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


def open_connection(host: Host, dialled: Dial, first_contact: FirstContact) -> fabric.Connection:
    """An authenticated connection. Raises HostKeyChanged, AuthFailed or ConnectFailed; nothing has run on the box then."""
    asked = time.monotonic()
    hops = _prepare(host, first_contact)
    try:
        first = next(iter(host.jumps), host)
        if dialled.direct:
            hops[0].connect_kwargs["sock"] = dialled.result()
        elif first.proxy_command:
            hops[0].connect_kwargs["sock"] = _proxy(first)
        hops[-1].open()
    except HostError:
        _hang_up(hops)
        raise
    except Exception as error:
        _hang_up(hops)
        raise _explain(host, error, time.monotonic() - asked) from None
    hops[-1].transport.set_keepalive(15)
    return hops[-1]


def _proxy(host: Host) -> paramiko.ProxyCommand:
    """The host's ProxyCommand, running. OpenSSH gives it to a shell; fabric neither does nor knows the port."""
    tokens = {"%h": host.hostname, "%p": str(host.port), "%r": host.user, "%n": host.hostname, "%%": "%"}
    asked = re.sub(r"%[hprn%]", lambda found: tokens[found.group()], host.proxy_command or "")
    return paramiko.ProxyCommand(shlex.join(["/bin/sh", "-c", f"exec {asked}"]))


def _prepare(host: Host, first_contact: FirstContact) -> list[fabric.Connection]:
    """The connections of the hops, the first of which is opened from here and the last of which is the box's."""
    hops: list[fabric.Connection] = []
    for hop in (*host.jumps, host):
        hops.append(_connection(hop, hops[-1] if hops else None, first_contact))
    return hops


def _hang_up(hops: list[fabric.Connection]) -> None:
    """Closes what was half opened: an sshd takes ten of those, then refuses everybody."""
    for hop in reversed(hops):
        hop.client.close()


def _connection(host: Host, gateway: fabric.Connection | None, first_contact: FirstContact) -> fabric.Connection:
    policy = PinPolicy(host, first_contact)
    config = fabric.Config(
        lazy=True,  # no fabric.yml, no ssh config: the Host has said it all
        overrides={"load_ssh_configs": False, "forward_agent": False},
    )
    connection = fabric.Connection(
        host.hostname,
        user=host.user,
        port=host.port,
        config=config,
        gateway=gateway,
        forward_agent=False,
        connect_timeout=CONNECT_TIMEOUT,
        connect_kwargs={
            "auth_strategy": KeysInOrder(host),
            "transport_factory": policy.transport,
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": CONNECT_TIMEOUT,
            "auth_timeout": 2 * CONNECT_TIMEOUT,
            "channel_timeout": CONNECT_TIMEOUT,
        },
    )
    connection.client.set_missing_host_key_policy(policy)
    return connection


class PinPolicy(paramiko.MissingHostKeyPolicy):
    """Every host key is decided here: paramiko is given none, since it holds one of each type and knows no ``@revoked``.

    A pinned host keeps its keys. At first contact the user's own known_hosts decide if they know the host; else the key is
    shown, and pinned.
    """

    def __init__(self, host: Host, first_contact: FirstContact) -> None:
        self.host = host
        self.ours = known_hosts.known(places.known_hosts(), host.known_as)
        self.theirs = known_hosts.Known([], []) if self.ours.keys else known_hosts.known_to_user(host)
        self.first_contact = first_contact

    def transport(self, *args: Any, **options: Any) -> paramiko.Transport:
        """One that asks for the types of the known keys first, as OpenSSH does: a host may have a key of each type."""
        opened = DirectTransport(*args, **options)
        types = {key.type for key in self.ours.keys or self.theirs.keys}
        opened._preferred_keys = tuple(sorted(opened._preferred_keys, key=lambda name: _type_of(name) not in types))
        return opened

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        seen = known_hosts.Key(key.get_name(), key.get_base64())
        if seen in self.ours.revoked + self.theirs.revoked:
            raise known_hosts.revoked(self.host, seen)
        if self.ours.keys:
            if seen not in self.ours.keys:
                raise known_hosts.changed(self.host, seen, self.ours.keys, "gpurun's known_hosts")
            return
        if self.theirs.keys and seen not in self.theirs.keys:
            raise known_hosts.changed(self.host, seen, self.theirs.keys, "your known_hosts")
        if not self.theirs.keys and seen not in self._without_port():
            self.first_contact(self.host, f"{seen.type} {seen.fingerprint}")
        known_hosts.pin(places.known_hosts(), self.host.known_as, seen)

    def _without_port(self) -> list[known_hosts.Key]:
        """Keys of the same machine at its usual port: OpenSSH takes them for another port too."""
        here = known_hosts.pinned(places.known_hosts(), self.host.hostname)
        return here + known_hosts.known_to_user(self.host, self.host.hostname).keys


def _type_of(algorithm: str) -> str:
    """The type of key that signs with this algorithm."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


class KeysInOrder(AuthStrategy):
    """The keys OpenSSH would offer, in its order: named files first (through the agent where it holds them), then the agent's others."""

    def __init__(self, host: Host) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self.host = host
        self.locked: list[str] = []  # key files that need a passphrase no agent has

    def get_sources(self) -> Iterator[AuthSource]:
        agent = {key.asbytes(): key for key in self._agent_keys()}
        for path in self.host.identities:
            blob = _public_half(path)
            if blob in agent:
                yield InMemoryPrivateKey(self.host.user, agent.pop(blob))
                continue
            try:
                yield InMemoryPrivateKey(self.host.user, paramiko.PKey.from_path(path))
            except (paramiko.PasswordRequiredException, TypeError):
                self.locked.append(path)
            except (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
                continue
        if not self.host.identities_only:
            for key in agent.values():
                yield InMemoryPrivateKey(self.host.user, key)

    def _agent_keys(self) -> tuple[Any, ...]:
        if not self.host.agent_socket:
            return ()
        client = socket.socket(socket.AF_UNIX)
        try:
            client.settimeout(5)
            client.connect(self.host.agent_socket)
            agent = paramiko.agent.AgentSSH()
            agent._connect(client)  # type: ignore[attr-defined]  # paramiko.Agent() reads SSH_AUTH_SOCK and nothing else
            return tuple(agent.get_keys())
        except (OSError, paramiko.SSHException):
            client.close()
            return ()


def _public_half(path: str) -> bytes | None:
    try:
        with open(path + ".pub", encoding="utf-8", errors="replace") as file:
            return base64.b64decode(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _explain(host: Host, error: Exception, took: float) -> HostError:
    """Which of the ways to fail this was, in words, with what was tried; ``took`` seconds tell silence from a reset."""
    broke = _broke(error)
    if isinstance(error, paramiko.AuthenticationException) and not broke:
        return _refused(host)
    kind: type[ConnectFailed] = ConnectFailed
    if isinstance(error, socket.gaierror):
        return ConnectFailed(
            f"no such host name: {host.hostname}", hint="Check the address in your provider's console."
        )
    if isinstance(error, ConnectionRefusedError | paramiko.ssh_exception.NoValidConnectionsError):
        why = "connection refused: nothing listens on that port (the box may still be starting)"
    elif took >= CONNECT_TIMEOUT and "banner" in str(error):
        why = f"something listens there, but it sent no SSH banner within {CONNECT_TIMEOUT} seconds"
    elif isinstance(error, TimeoutError) or took >= CONNECT_TIMEOUT:
        why = f"no answer within {CONNECT_TIMEOUT} seconds"
    elif broke:
        kind, why = LinkLost, "the connection broke while it was being opened"
    elif "banner" in str(error) or "protocol version" in str(error):
        why = "what listens there does not speak SSH"
    else:
        why = clean(error, 200) or type(error).__name__
    tried = f"{host} (from {host.typed!r})" if host.typed != str(host) else str(host)
    return kind(
        f"cannot reach {tried}: {why}",
        meaning="What runs on the box goes on running.",
        hint=f"Check address and port in your provider's console, or try: ssh -p {host.port} {host.user}@{host.hostname}",
        retryable=True,
    )


def _broke(error: BaseException | None) -> bool:
    """Whether the other end hung up: paramiko hides it in the context of an error, or among the results of the keys tried."""
    if isinstance(error, paramiko.auth_strategy.AuthFailure):
        tried = [each.result for each in error.result]
        return bool(tried) and isinstance(tried[0], Exception) and _broke(tried[0])
    while error is not None:
        said = str(error)
        if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError) or "saw EOF" in said:
            return True
        if said in ("Negotiation failed.", "No existing session", "Socket is closed") or isinstance(
            error, paramiko.ProxyCommandFailure
        ):
            return True
        error = error.__context__
    return False


def _refused(host: Host) -> AuthFailed:
    offered = ", ".join(host.identities) or "no key file"
    agent = "" if host.identities_only or not host.agent_socket else ", and what the ssh agent holds"
    return AuthFailed(
        f"{host} refused the login of {host.user}: tried {offered}{agent}",
        meaning="Nothing ran on the box.",
        hint="Name the key: --host 'ssh -i ~/.ssh/KEY -p PORT USER@HOST'. A key with a passphrase must be in the agent (ssh-add).",
    )
