"""Makes a Host of the address that the user typed. OpenSSH itself reads the user's configuration (``ssh -G``), with Include and Match."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from runner.domain.errors import HostError
from runner.domain.host import Address, Host, Trust, parse_address
from runner.transport.ssh_tokens import expand, expand_path, tokens

_MAX_JUMPS = 4
# Settings that decide about host keys. OpenSSH gets these lines again, unchanged, when it is asked about a new host.
_TRUST = (
    "hostkeyalias", "knownhostscommand", "checkhostip", "casignaturealgorithms", "requiredrsasize",
    "verifyhostkeydns",
)  # fmt: skip


def resolve(typed: str, volume: str | None = None) -> Host:
    """The Host, from which both SSH stacks get their settings. Raises HostError for a text that is no host, or a broken configuration."""
    return replace(_resolve(parse_address(typed), typed, depth=0), volume=volume)


def _resolve(address: Address, typed: str, depth: int) -> Host:
    if depth > _MAX_JUMPS:
        raise HostError(
            f"{typed}: more than {_MAX_JUMPS} jump hosts in a row",
            hint="Look for a loop of ProxyJump in your ssh config.",
        )
    settings = _ask_ssh(address, typed)
    one = {key: values[-1] for key, values in settings.items()}
    jumps: list[Host] = []
    for hop in (_set(one.get("proxyjump")) or "").split(","):
        if hop:
            resolved = _resolve(parse_address(hop), hop, depth + 1)
            # Only the first hop is reached by its own jumps; the others are reached through the hop before them.
            jumps += [*resolved.jumps, replace(resolved, jumps=())] if not jumps else [replace(resolved, jumps=())]
    known = tokens(address.name, one["hostname"], one["port"], one["user"], _set(one.get("proxyjump")) or "")
    return Host(
        typed=typed,
        hostname=one["hostname"],
        port=int(one["port"]),
        user=one["user"],
        identities=_identities(address, settings.get("identityfile", []), known),
        certificates=_files(settings.get("certificatefile", []), known),
        identities_only=address.identity is not None or one.get("identitiesonly") == "yes",
        agent_socket=_agent_socket(one.get("identityagent"), known),
        proxy_command=_set(one.get("proxycommand")),
        jumps=tuple(jumps),
        trust=_trust(one, known),
    )


def _trust(one: dict[str, str], known: dict[str, str]) -> Trust:
    files = [
        (key, tuple(expand_path(file, known) for file in split_files(one.get(key.lower(), ""))))
        for key in ("UserKnownHostsFile", "GlobalKnownHostsFile")
    ]
    settings = [(key, value) for key in _TRUST if (value := _set(one.get(key)))]
    settings += [(key, " ".join(f'"{name.replace("%", "%%")}"' for name in names) or "none") for key, names in files]
    if revoked := _set(one.get("revokedhostkeys")):
        settings.append(("RevokedHostKeys", f'"{revoked}"'))  # its name may have spaces
    asked = one.get("stricthostkeychecking", "ask")
    return Trust(
        settings=tuple(settings),
        strict=asked in ("yes", "true") or (asked == "ask" and one.get("batchmode") == "yes"),
        known_hosts=tuple(name for _, names in files for name in names),
        revoked=expand_path(revoked, known) if revoked else None,
        algorithms=tuple(name for name in one.get("hostkeyalgorithms", "").split(",") if name),
        rsa_bits=int(one["requiredrsasize"]) if one.get("requiredrsasize", "").isdigit() else 0,
    )


def split_files(line: str) -> list[str]:
    """The file names of a line of ``ssh -G``, which prints names that contain spaces without their quotes.

    A word that does not begin like a path belongs to the name before it. So does a word that begins like one, if the two together
    are a file and the name before it is none.
    """
    names: list[str] = []
    for word in line.split(" "):
        joined = f"{names[-1]} {word}" if names else word
        like_a_path = word.startswith(("/", "~", "%", "${"))
        if names and (not like_a_path or (os.path.isfile(joined) and not os.path.isfile(names[-1]))):
            names[-1] = joined
        else:
            names.append(word)
    return [name for name in names if name.strip() and name != "none"]


def _ask_ssh(address: Address, typed: str) -> dict[str, list[str]]:
    argv = ["ssh", "-G"]
    for flag, value in (("-p", address.port), ("-l", address.user), ("-i", address.identity), ("-J", address.jump)):
        if value is not None:
            argv += [flag, str(value)]
    try:
        answer = subprocess.run(
            [*argv, "--", address.name], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise HostError(
            "there is no ssh on this machine", hint="Install the OpenSSH client (apt install openssh-client)."
        ) from None
    if answer.returncode != 0:
        raise HostError(
            f"{typed}: ssh cannot read its configuration: {answer.stderr.strip()[-400:]}",
            meaning="Nothing was contacted.",
            hint=f"Try: ssh -G {address.name}",
        )
    settings: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        key, _, value = line.partition(" ")
        settings.setdefault(key, []).append(value)
    return settings


def _identities(address: Address, files: list[str], known: dict[str, str]) -> tuple[str, ...]:
    if address.identity is not None:
        path = os.path.expanduser(address.identity)
        if not _is_identity(path):
            raise HostError(
                f"the key file {address.identity} does not exist",
                meaning="Nothing was contacted.",
                hint="Check the path after -i.",
            )
        return (path,)
    return _files(files, known)


def _files(names: list[str], known: dict[str, str]) -> tuple[str, ...]:
    """The named files that exist, each once."""
    paths = dict.fromkeys(expand_path(name, known) for name in names if name != "none")
    return tuple(path for path in paths if _is_identity(path))


def _is_identity(path: str) -> bool:
    # "key" may name a key of which only the public half, key.pub, is on this machine: the ssh agent holds the private one.
    return os.path.isfile(path) or os.path.isfile(path + ".pub")


def _agent_socket(identity_agent: str | None, known: dict[str, str]) -> str | None:
    named = _set(identity_agent)
    if identity_agent == "none":
        return None
    if named is None or named == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK")
    if named.startswith("$") and not named.startswith("${"):
        return os.environ.get(named[1:]) or None
    return os.path.expanduser(expand(named, known)) or None


def _set(value: str | None) -> str | None:
    return value if value not in (None, "", "none") else None
