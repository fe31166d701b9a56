"""Opens the one SSH connection with fabric, whose defaults are replaced before the first packet.

By default fabric accepts every new host key (``AutoAddPolicy``), loads no known_hosts, and reads the user's ssh config with a parser that
ignores ``Include``. Here the Host was resolved by OpenSSH, each key is checked against gpurun's pins (those of gateways too), nothing is
forwarded, and keys are offered in OpenSSH's order.
"""

from __future__ import annotations

import logging
import shlex
import socket
import time
from dataclasses import replace

import fabric
import paramiko

from runner.domain import places
from runner.domain.errors import ConnectFailed, GpurunError, HostError, LinkLost
from runner.domain.host import Host, parse_address
from runner.domain.terminal import clean
from runner.transport import known_hosts, login
from runner.transport.first_contact import CERTIFIED, HostKeyAnswer, HostKeyQuery
from runner.transport.known_hosts import FirstContact
from runner.transport.paramiko_private import OFFERED, DirectTransport
from runner.transport.ssh_tokens import expand, tokens
from runner.transport.tcp import CONNECT_TIMEOUT, PendingConnection

# paramiko logs text from the other end, and its own tracebacks; without a handler Python prints them on the user's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


def open_connection(host: Host, tcp: PendingConnection, first_contact: FirstContact) -> fabric.Connection:
    """An authenticated connection. Raises HostKeyChanged, AuthFailed or ConnectFailed; nothing has run on the box then."""
    policies = _policies(host, first_contact)
    try:
        try:
            return _open(host, tcp, policies)
        except OtherKey:
            return _open(host, PendingConnection(host), policies)  # asks for a key of the type that OpenSSH saw
    except OtherKey as other:
        raise known_hosts.two_faces(host, other.args[0]) from None
    finally:
        for policy in policies:
            policy.close()


def _open(host: Host, tcp: PendingConnection, policies: list[PinPolicy]) -> fabric.Connection:
    began = time.monotonic()
    hops = _hops(policies)
    try:
        first = next(iter(host.jumps), host)
        if tcp.direct:
            hops[0].connect_kwargs["sock"] = tcp.result()
        elif first.proxy_command:
            hops[0].connect_kwargs["sock"] = _proxy(first)
        hops[-1].open()
    except (GpurunError, OtherKey):
        _close(hops)
        raise
    except Exception as error:
        _close(hops)
        raise _explain(host, error, time.monotonic() - began) from None
    hops[-1].transport.set_keepalive(15)
    return hops[-1]


def _proxy(host: Host) -> paramiko.ProxyCommand:
    """The host's ProxyCommand, started by a shell as OpenSSH does; fabric uses no shell and does not expand the port."""
    known = tokens(parse_address(host.typed).name, host.hostname, str(host.port), host.user)
    return paramiko.ProxyCommand(shlex.join(["/bin/sh", "-c", f"exec {expand(host.proxy_command or '', known)}"]))


def _policies(host: Host, first_contact: FirstContact) -> list[PinPolicy]:
    """One policy for each hop, the box's last. OpenSSH is asked about a hop through the hops before it."""
    hops = (*host.jumps, host)
    return [PinPolicy(replace(hop, jumps=hops[:number]), first_contact) for number, hop in enumerate(hops)]


def _hops(policies: list[PinPolicy]) -> list[fabric.Connection]:
    """The connections of the hops, not opened yet: the first starts on this machine, the last ends at the box."""
    hops: list[fabric.Connection] = []
    for policy in policies:
        hops.append(_connection(policy, hops[-1] if hops else None))
    return hops


def _close(hops: list[fabric.Connection]) -> None:
    """Closes connections that are half opened: an sshd allows ten of them, then refuses new ones."""
    for hop in reversed(hops):
        hop.client.close()


def _connection(policy: PinPolicy, gateway: fabric.Connection | None) -> fabric.Connection:
    host = policy.host
    config = fabric.Config(
        lazy=True,  # reads no fabric.yml and no ssh config: everything is in the Host
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
            "auth_strategy": login.KeysInOrder(host),
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
    """Decides about every host key. paramiko itself is given no known keys: it holds only one of each type, and ignores ``@revoked``.

    The key of a pinned host must be one of its pins. About a new host OpenSSH is asked, with the user's own settings: the key is refused,
    or known to the user, or new to the user too; then its fingerprint is shown. An accepted key is pinned.
    """

    def __init__(self, host: Host, first_contact: FirstContact) -> None:
        self.host = host
        self.pins = known_hosts.known(places.known_hosts(), host.known_as)
        self.first_contact = first_contact
        self.answer: HostKeyAnswer | None = None
        # OpenSSH is asked about a host behind a jump host only after the jump host is trusted.
        self._query = HostKeyQuery(host) if host.trust and not self.pins.keys and not host.jumps else None

    def transport(self, *args: object, **options: object) -> paramiko.Transport:
        """A transport that prefers the types of the known keys, as OpenSSH does: a host may have a key of each type."""
        opened: paramiko.Transport = DirectTransport(*args, **options)
        # paramiko does not support host certificates: it checks the key that OpenSSH found certified.
        allowed = [name.removesuffix(CERTIFIED) for name in self.host.trust.algorithms] if self.host.trust else []
        names = [name for name in OFFERED["host key"] if not allowed or name in allowed]
        if not names:
            raise HostError(
                f"your ssh configuration allows no type of host key that gpurun can check for {self.host.known_as}: "
                f"HostKeyAlgorithms {','.join(allowed)}",
                meaning="Nothing was contacted.",
                hint=f"Allow one of these for this host: {', '.join(OFFERED['host key'])}",
            )
        types = {self.answer.type} if self.answer else {key.type for key in self.pins.keys}
        opened.get_security_options().key_types = tuple(sorted(names, key=lambda name: _type_of(name) not in types))
        return opened

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        seen = known_hosts.Key(key.get_name(), key.get_base64())
        if self.pins.keys and seen not in self.pins.keys:
            if seen in self.pins.revoked:
                raise known_hosts.revoked(self.host, seen)
            raise known_hosts.changed(self.host, seen, self.pins.keys)
        known = bool(self.pins.keys) or self._known_to_user(seen)
        if seen in self.pins.revoked or known_hosts.is_revoked(self.host.trust, seen):
            raise known_hosts.revoked(self.host, seen)
        self._check_size(key)
        if not known:
            self._show_new(seen)
        if not self.pins.keys:
            known_hosts.pin(places.known_hosts(), self.host.known_as, seen)

    def _show_new(self, seen: known_hosts.Key) -> None:
        """Shows a key that neither gpurun nor the user has seen before. Raises HostError where the user's settings refuse new keys."""
        if self.host.trust is not None and self.host.trust.strict:
            raise known_hosts.unknown_to_strict(self.host, seen)
        if seen not in known_hosts.pinned(places.known_hosts(), self.host.hostname):  # pinned for its port 22
            others = known_hosts.names_of(places.known_hosts(), seen)
            also = f", also pinned for {', '.join(others)}" if others else ""  # a box whose address or port has changed
            self.first_contact(self.host, f"{seen.type} {seen.fingerprint}{also}")

    def _known_to_user(self, seen: known_hosts.Key) -> bool:
        """Whether ``ssh`` would accept this key without asking the user. Raises HostKeyChanged where it would refuse the key."""
        if self.host.trust is None:
            return False
        if self.answer is None:
            self.answer = (self._query or HostKeyQuery(self.host)).answer()
        if self.answer.verdict in ("changed", "revoked"):
            raise known_hosts.refused_by_openssh(self.host, self.answer.fingerprint, self.answer.message)
        if self.answer.fingerprint != seen.fingerprint:
            raise OtherKey(self.answer.type)
        return self.answer.verdict == "known"

    def _check_size(self, key: paramiko.PKey) -> None:
        needed = self.host.trust.rsa_bits if self.host.trust else 0
        if key.get_name() == "ssh-rsa" and key.get_bits() < needed:
            raise HostError(
                f"the host key of {self.host.known_as} is RSA with {key.get_bits()} bits; your ssh configuration requires {needed}",
                meaning="Nothing was sent and no command ran.",
                hint="Make a larger key on the box, or one of type ed25519: ssh-keygen -A, then restart its sshd.",
            )

    def close(self) -> None:
        """Ends the ssh that was asked, if its answer was not needed."""
        if self._query is not None:
            self._query.close()


class OtherKey(Exception):
    """The host showed gpurun a key of another type than it showed OpenSSH; ``args[0]`` is the type to request."""


def _type_of(algorithm: str) -> str:
    """The type of key that signs with this algorithm."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _explain(host: Host, error: Exception, took: float) -> HostError:
    """The error for a connection that could not be opened; ``took`` (seconds) distinguishes silence from a reset."""
    broke = _broke(error)
    if isinstance(error, paramiko.AuthenticationException) and not broke:
        return login.refused(host, error)
    kind: type[ConnectFailed] = ConnectFailed
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return ConnectFailed(
            f"{host} and gpurun have no {_lacking(error)} in common",
            meaning="Nothing ran on the box. ssh may know more algorithms than gpurun's SSH library (paramiko) does.",
            hint=f"Allow one of these in the box's sshd_config, then restart its sshd: {_offered(error)}",
        )
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


# For the word with which paramiko names the algorithms that the two ends do not share: their usual name, and sshd's setting for them.
_ALGORITHMS = {
    "kex": ("key exchange", "KexAlgorithms"),
    "cipher": ("cipher", "Ciphers"),
    "mac": ("MAC", "MACs"),
    "host key": ("type of host key", "HostKeyAlgorithms"),
}


def _lacking(error: Exception) -> str:
    return next((name for word, (name, _) in _ALGORITHMS.items() if word in str(error)), "algorithm")


def _offered(error: Exception) -> str:
    """The setting of sshd, and the first algorithms of ours that it could allow."""
    for word, (_, setting) in _ALGORITHMS.items():
        if word in str(error):
            return f"{setting} +{','.join(OFFERED[word][:3])}"
    return "its defaults"


def _broke(error: BaseException | None) -> bool:
    """Whether the other end closed the connection: paramiko hides that in an error's context, or in the results of the keys tried."""
    if isinstance(error, paramiko.auth_strategy.AuthFailure):
        tried = [each.result for each in error.result]
        return bool(tried) and isinstance(tried[0], Exception) and _broke(tried[0])
    while error is not None:
        message = str(error)
        if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError) or "saw EOF" in message:
            return True
        if message in ("Negotiation failed.", "No existing session", "Socket is closed") or isinstance(
            error, paramiko.ProxyCommandFailure
        ):
            return True
        error = error.__context__
    return False
