"""From what was typed to one Host: OpenSSH itself is asked (``ssh -G``), so that Include, Match and aliases mean what they mean."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from runner.domain.errors import HostError
from runner.domain.host import Address, Host, parse_address

_MAX_JUMPS = 4


def resolve(typed: str, volume: str | None = None) -> Host:
    """The Host that both stacks are fed from. Raises HostError when the text is no host or the configuration is broken."""
    return replace(_resolve(parse_address(typed), typed, depth=0), volume=volume)


def _resolve(address: Address, typed: str, depth: int) -> Host:
    if depth > _MAX_JUMPS:
        raise HostError(
            f"{typed}: more than {_MAX_JUMPS} jump hosts in a row",
            hint="Look for a loop of ProxyJump in your ssh config.",
        )
    said = _ask_ssh(address, typed)
    one = {key: values[-1] for key, values in said.items()}
    jumps: list[Host] = []
    for hop in (_set(one.get("proxyjump")) or "").split(","):
        if hop:
            resolved = _resolve(parse_address(hop), hop, depth + 1)
            # Only the first hop is reached by its own jumps; the later ones lie behind it.
            jumps += [*resolved.jumps, replace(resolved, jumps=())] if not jumps else [replace(resolved, jumps=())]
    return Host(
        typed=typed,
        hostname=one["hostname"],
        port=int(one["port"]),
        user=one["user"],
        identities=_identities(address, said.get("identityfile", [])),
        identities_only=address.identity is not None or one.get("identitiesonly") == "yes",
        agent_socket=_agent_socket(one.get("identityagent")),
        proxy_command=_set(one.get("proxycommand")),
        jumps=tuple(jumps),
        user_known_hosts=tuple(
            os.path.expanduser(name)
            for key in ("userknownhostsfile", "globalknownhostsfile")
            for name in one.get(key, "").split()
            if name != "none"
        ),
    )


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
            f"{typed}: ssh cannot make sense of its configuration: {answer.stderr.strip()[-400:]}",
            meaning="Nothing was contacted.",
            hint=f"Try: ssh -G {address.name}",
        )
    said: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)
    return said


def _identities(address: Address, files: list[str]) -> tuple[str, ...]:
    if address.identity is not None:
        path = os.path.expanduser(address.identity)
        if not os.path.isfile(path):
            raise HostError(
                f"the key file {address.identity} does not exist",
                meaning="Nothing was contacted.",
                hint="Check the path after -i.",
            )
        return (path,)
    paths = [os.path.expanduser(name) for name in files if name != "none"]
    return tuple(path for path in paths if os.path.isfile(path))


def _agent_socket(identity_agent: str | None) -> str | None:
    named = _set(identity_agent)
    if identity_agent == "none":
        return None
    if named is None or named == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK")
    return os.path.expanduser(os.environ.get(named[1:], "") if named.startswith("$") else named) or None


def _set(value: str | None) -> str | None:
    return value if value not in (None, "", "none") else None
