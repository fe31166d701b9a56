"""The keys that are offered to a box, in their order, and the error when it accepts none of them."""

from __future__ import annotations

import base64
import os
import socket
import sys
from collections.abc import Iterator

import paramiko
from paramiko.auth_strategy import AuthFailure, AuthSource, AuthStrategy, InMemoryPrivateKey
from paramiko.pkey import PublicBlob

from runner.domain.errors import AuthFailed
from runner.domain.host import Host
from runner.domain.terminal import clean
from runner.transport.paramiko_private import agent_keys


class KeysInOrder(AuthStrategy):
    """The keys that OpenSSH would offer, in its order: named files first (through the ssh agent if it holds them), then the agent's others.

    A named file may be a public key whose private half only the agent holds. A key that has a certificate is offered with it first.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self.host = host
        self.locked: list[str] = []  # files of keys that need a passphrase, and that no agent holds
        self.absent: list[str] = []  # files of public keys whose private half no agent holds

    def get_sources(self) -> Iterator[AuthSource]:
        agent = {key.asbytes(): key for key in self._agent_keys()}
        certificates = [blob for path in self.host.certificates if (blob := _certificate(path)) is not None]
        for path in self.host.identities:
            key = self._named(path, agent)
            if key is not None:
                yield from self._offers(key, certificates)
        if not self.host.identities_only:
            for key in agent.values():
                yield from self._offers(key, certificates)

    def _named(self, path: str, agent: dict[bytes, paramiko.PKey]) -> paramiko.PKey | None:
        """The key in a file, or the agent's key with the same public half; None for one that cannot be used, which is remembered."""
        public = _public_half(path)
        if public in agent:
            return agent.pop(public)
        try:
            return paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError):
            self.locked.append(path)
        except (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
            if public is not None:
                self.absent.append(path)
        return None

    def _offers(self, key: paramiko.PKey, certificates: list[PublicBlob]) -> Iterator[AuthSource]:
        own = [key.public_blob] if key.public_blob is not None else []  # NAME-cert.pub beside the file
        for certificate in [*own, *(each for each in certificates if _certifies(each, key.asbytes())), None]:
            key.public_blob = certificate  # each source is tried before the next one is asked for
            yield InMemoryPrivateKey(self.host.user, key)

    def _agent_keys(self) -> tuple[paramiko.PKey, ...]:
        if not self.host.agent_socket:
            return ()
        client = socket.socket(socket.AF_UNIX)
        try:
            client.settimeout(5)
            client.connect(self.host.agent_socket)
            return tuple(agent_keys(client))
        except (OSError, paramiko.SSHException):
            client.close()
            return ()


def _public_half(path: str) -> bytes | None:
    """The blob of the public key in ``path.pub``, or in ``path`` itself."""
    for name in (path + ".pub", path):
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                words = file.read(1 << 16).split()
            blob = base64.b64decode(words[1], validate=True)
            if paramiko.Message(blob).get_text() == words[0]:
                return blob
        except (OSError, IndexError, ValueError):
            continue
    return None


def _certificate(path: str) -> PublicBlob | None:
    try:
        return PublicBlob.from_file(path)
    except (OSError, ValueError):
        return None


def _certifies(certificate: PublicBlob, key: bytes) -> bool:
    """Whether a certificate is about this public key: its blob is a type, a nonce, and then the fields of the key (PROTOCOL.certkeys)."""
    plain, certified = paramiko.Message(key), paramiko.Message(certificate.key_blob)
    if not certified.get_text().startswith(plain.get_text()):
        return False
    certified.get_string()
    return certified.get_remainder().startswith(plain.get_remainder())


def refused(host: Host, error: Exception) -> AuthFailed:
    """The error for a login that the box refused: which keys were tried and which were not, and what to do."""
    strategy = error.result.strategy if isinstance(error, AuthFailure) else None
    if isinstance(strategy, KeysInOrder):
        host = strategy.host  # a jump host may be the one that refused
    locked = strategy.locked if isinstance(strategy, KeysInOrder) else []
    absent = strategy.absent if isinstance(strategy, KeysInOrder) else []
    tried = ", ".join(path for path in host.identities if path not in [*locked, *absent]) or "no key file"
    agent = "" if host.identities_only or not host.agent_socket else ", and what the ssh agent holds"
    lines = [f"{host} refused the login of {host.user}: tried {tried}{agent}"]
    lines += [f"not tried, it needs a passphrase: {path}" for path in locked]
    lines += [f"not tried, no ssh agent holds its private half: {path}" for path in absent]
    accepted = _accepted(error)
    if accepted and "publickey" not in accepted:
        lines.append(f"the box accepts only: {', '.join(accepted)}")
    return AuthFailed("\n".join(lines), meaning="Nothing ran on the box.", hint=_hint(host, accepted, locked))


def _accepted(error: Exception) -> list[str]:
    """The authentication methods that the box named."""
    results = [each.result for each in error.result] if isinstance(error, AuthFailure) else [error]
    named = [each.allowed_types for each in results if isinstance(each, paramiko.BadAuthenticationType)]
    return [clean(name, 40) for name in named[-1]][:8] if named else []


def _hint(host: Host, accepted: list[str], locked: list[str]) -> str:
    if accepted and "publickey" not in accepted:
        return (
            "gpurun logs in with keys only. Give the box your public key where your provider asks for it, and allow keys there: "
            "PubkeyAuthentication yes in /etc/ssh/sshd_config."
        )
    if not host.identities and not host.agent_socket:
        return "There is no SSH key on this machine: make one (ssh-keygen -t ed25519) and give its .pub file to your provider."
    if locked:
        # macOS keeps passphrases in its keychain: this makes its agent load them.
        keychain = "ssh-add --apple-load-keychain, or " if sys.platform == "darwin" else ""
        return f"Put the key into the agent: {keychain}ssh-add {locked[0].replace(os.path.expanduser('~'), '~', 1)}"
    return "Name the key: --host 'ssh -i ~/.ssh/KEY -p PORT USER@HOST'. A key with a passphrase must be in the agent (ssh-add)."
