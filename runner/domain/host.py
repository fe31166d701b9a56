"""An address and how to reach it, in every spelling a person may have at hand. No I/O: ``runner/transport/resolve.py`` asks ``ssh -G``."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from runner.domain.errors import HostError

LOCAL = "local"
HOME = "~"  # as a volume: the home folder, whatever it is called there

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_IPV6 = re.compile(r"[0-9A-Fa-f:]+(?:%[A-Za-z0-9_.-]+)?")
_SSH_FLAGS = set("46AaCfGgKkMNnqsTtVvXxYy")
_SSH_VALUES = set("BbcDEeFIJLmOoPpQRSWwil")


@dataclass(frozen=True)
class Address:
    """What the user typed, taken apart; nothing is looked up yet."""

    name: str  # host name, address or alias of the ssh config
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    jump: str | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        name = f"[{self.name}]" if ":" in self.name and self.port else self.name
        return f"{user}{name}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True)
class Trust:
    """The settings about host keys in the user's ssh configuration, as ``ssh -G`` prints them."""

    settings: tuple[
        tuple[str, str], ...
    ] = ()  # unchanged lines for OpenSSH: HostKeyAlias, known_hosts files, commands …
    strict: bool = False  # a host whose key is not known is refused (StrictHostKeyChecking yes, or BatchMode)
    known_hosts: tuple[str, ...] = ()  # the user's files, read and never written
    revoked: str | None = None  # RevokedHostKeys
    algorithms: tuple[str, ...] = ()  # HostKeyAlgorithms, in the user's order; empty for no restriction
    rsa_bits: int = 0  # RequiredRSASize


@dataclass(frozen=True)
class Host:
    """One host as both SSH stacks are to reach it: resolved once, then handed to fabric and to OpenSSH alike."""

    typed: str
    hostname: str
    port: int
    user: str
    identities: tuple[str, ...] = ()  # files of keys, or of public keys whose private half the agent holds
    certificates: tuple[str, ...] = ()  # CertificateFile
    identities_only: bool = False
    agent_socket: str | None = None
    proxy_command: str | None = None
    jumps: tuple[Host, ...] = ()  # the first is reached directly
    trust: Trust | None = None  # None for the embedded box: no configuration of the user's is about it
    volume: str | None = None  # the folder there that holds the root, or HOME; None: the box chooses
    interpreters: tuple[str, ...] = field(default=(), compare=False)  # more places to look for a Python

    @property
    def known_as(self) -> str:
        """The name under which the host key is pinned, as OpenSSH spells it."""
        return self.hostname if self.port == 22 else f"[{self.hostname}]:{self.port}"

    def __str__(self) -> str:
        return f"{self.user}@{self.hostname}{'' if self.port == 22 else f':{self.port}'}"


def parse_address(text: str) -> Address:
    """``user@host``, ``host:port``, ``ssh://…``, an alias, or the whole ssh line a provider shows.

    Raises HostError for anything that could be read as an option or a command.
    """
    text = text.strip()
    if not text or any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise _refused(text, "is empty or has control characters")
    if text.split()[0] == "ssh" and len(text.split()) > 1:
        return _from_ssh_line(text)
    if text.startswith("-"):
        raise _refused(text, "starts with a dash, which ssh would read as an option")
    if text.startswith("ssh://"):
        text = text[len("ssh://") :].rstrip("/")
        if "/" in text:
            raise _refused(text, "has a path; an SSH address has none")
    return _destination(text)


def _from_ssh_line(line: str) -> Address:
    """``ssh -p 41022 root@1.2.3.4 -i ~/.ssh/key -L 8080:localhost:8080``: forwardings and the like are dropped."""
    try:
        words = shlex.split(line)[1:]
    except ValueError as error:
        raise _refused(line, f"cannot be read: {error}") from None
    values: dict[str, str] = {}
    destination: str | None = None
    while words:
        word = words.pop(0)
        if word.startswith("-") and len(word) > 1:
            letter, rest = word[1], word[2:]
            if letter in _SSH_FLAGS and set(rest) <= _SSH_FLAGS:
                continue
            if letter not in _SSH_VALUES:
                raise _refused(line, f"has an option that ssh does not know: {word}")
            if not rest and not words:
                raise _refused(line, f"ends after {word}")
            values[letter] = rest or words.pop(0)
        elif destination is None:
            destination = word
        else:
            raise _refused(line, f"has a command ({word}) after the host; give only the connection")
    if destination is None:
        raise _refused(line, "names no host")
    if destination.startswith("-"):
        raise _refused(line, "has a host that starts with a dash")
    address = _destination(destination.removeprefix("ssh://"))
    port = _port(values["p"], line) if "p" in values else address.port
    identity, jump = values.get("i"), values.get("J")
    if (identity or "").startswith("-") or (jump or "").startswith("-"):
        raise _refused(line, "has a key or jump host that starts with a dash")
    for hop in (jump or "").split(",") if jump else ():
        _destination(hop.removeprefix("ssh://"))
    return Address(address.name, values.get("l") or address.user, port, identity, jump)


def _destination(text: str) -> Address:
    user, at, rest = text.rpartition("@")
    if at and not _USER.fullmatch(user):
        raise _refused(text, f"has a user name that cannot be one: {user!r}")
    name, port = rest, None
    if rest.startswith("["):
        name, closed, tail = rest[1:].partition("]")
        if not closed or (tail and not tail.startswith(":")):
            raise _refused(text, "has an unclosed bracket")
        port = _port(tail[1:], text) if tail else None
    elif rest.count(":") == 1:
        name, _, tail = rest.partition(":")
        port = _port(tail, text)
    if not (_NAME.fullmatch(name) or (":" in name and _IPV6.fullmatch(name))):
        raise _refused(text, f"has no usable host name: {name!r}")
    return Address(name, user or None, port)


def _port(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise _refused(whole, f"has no usable port: {text!r}")
    return int(text)


def _refused(text: str, why: str) -> HostError:
    return HostError(
        f"--host {text!r} {why}",
        meaning="Nothing was contacted.",
        hint="Give user@host, user@host:port, an alias of your ssh config, or the ssh line from your provider's console.",
    )
