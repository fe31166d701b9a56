"""Writes a Host as a configuration file for OpenSSH, which rsync's ssh reads instead of the user's own files."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

from runner.domain import places
from runner.domain.host import Host, parse_address
from runner.files import write_text

ALIAS = "gpurun-box"

# Only gpurun's own pins decide about host keys.
_PINS = """\
  UserKnownHostsFile "{known_hosts}"
  GlobalKnownHostsFile none
  CheckHostIP no
"""
# The settings of every connection (ARCHITECTURE.md, "Every connection"), also where the user's own configuration has others.
# AES-GCM first: processors have instructions for it, and it was measured to be 20 % faster than the default.
_ALWAYS = """\
  StrictHostKeyChecking yes
  UpdateHostKeys no
  ForwardAgent no
  ForwardX11 no
  ClearAllForwardings yes
  PermitLocalCommand no
  ControlMaster no
  ControlPath none
  BatchMode yes
  ConnectTimeout 15
  ServerAliveInterval 15
  ServerAliveCountMax 3
  Ciphers ^aes128-gcm@openssh.com
"""
# An ssh that only checks the host key ends before the login.
_NO_LOGIN = """\
  PreferredAuthentications none
  PubkeyAuthentication no
"""


def ssh_argv(host: Host) -> list[str]:
    """``ssh -F <file>``, the command for rsync's ``-e``; the destination is ``ALIAS``."""
    return ["ssh", "-F", str(write_config(host))]


def session_argv(host: Host, command: str | None, *, terminal: bool) -> list[str]:
    """An ``ssh`` that runs a command line on the box, or without one its login shell; with ``terminal`` it has a terminal there."""
    return [*ssh_argv(host), "-t" if terminal else "-T", ALIAS, *([] if command is None else [command])]


def write_config(host: Host) -> Path:
    """A configuration file in which ``ALIAS`` is the box, checked by gpurun's own pins."""
    return _write(config_text(host, places.known_hosts()))


def write_query_config(host: Host) -> tuple[str, Path]:
    """A destination and a configuration file with which ``ssh`` checks this host's key by the user's own settings."""
    assert host.trust is not None
    name = parse_address(host.typed).name
    known_hosts = places.known_hosts()
    settings = "".join(f"  {key} {value}\n" for key, value in host.trust.settings) + _algorithms(host.trust.algorithms)
    query = _connection(name, host, _last_jump(host)) + settings + _NO_LOGIN + "  LogLevel DEBUG1\n" + _ALWAYS
    return name, _write(query + _jumps(host, known_hosts))


def _algorithms(wanted: tuple[str, ...]) -> str:
    """The line for the user's HostKeyAlgorithms, empty where they set none: only with its own list does OpenSSH prefer types that it knows.

    ``ssh -G`` prints a list in either case.
    """
    answer = subprocess.run(
        ["ssh", "-F", "none", "-G", "localhost"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    found = re.search(r"^hostkeyalgorithms (\S+)$", answer.stdout, re.MULTILINE)
    defaults = found[1].split(",") if found else []
    if not wanted or tuple(defaults) == wanted:
        return ""
    if tuple(defaults) == wanted[: len(defaults)]:
        return f"  HostKeyAlgorithms +{','.join(wanted[len(defaults) :])}\n"
    return f"  HostKeyAlgorithms {','.join(wanted)}\n"


def config_text(host: Host, known_hosts: Path) -> str:
    """Host blocks for the box and for each jump before it."""
    return _block(ALIAS, host, _last_jump(host), known_hosts) + _jumps(host, known_hosts)


def _write(text: str) -> Path:
    """Writes the file and gives its path. Its name is a digest of its content, so that processes cannot overwrite each other's."""
    file = places.ssh_configs() / (hashlib.sha256(text.encode()).hexdigest()[:16] + ".config")
    if not file.exists():
        write_text(file, text)
    return file


def _last_jump(host: Host) -> str | None:
    return f"gpurun-jump-{len(host.jumps) - 1}" if host.jumps else None


def _jumps(host: Host, known_hosts: Path) -> str:
    before = [None, *(f"gpurun-jump-{number}" for number in range(len(host.jumps)))]
    return "".join(
        _block(f"gpurun-jump-{number}", jump, before[number], known_hosts) for number, jump in enumerate(host.jumps)
    )


def _block(alias: str, host: Host, jump: str | None, known_hosts: Path) -> str:
    pins = _PINS.format(known_hosts=str(known_hosts).replace("%", "%%"))
    return _connection(alias, host, jump) + pins + "  LogLevel ERROR\n" + _ALWAYS


def _connection(alias: str, host: Host, jump: str | None) -> str:
    """The settings for reaching the host and for the keys to offer."""
    lines = [
        f"Host {alias}",
        f"  HostName {host.hostname.replace('%', '%%')}",
        f"  Port {host.port}",
        f"  User {host.user}",
        f"  IdentitiesOnly {'yes' if host.identities_only else 'no'}",
        f"  IdentityAgent {_quoted(host.agent_socket) if host.agent_socket else 'none'}",
        *(f"  IdentityFile {_quoted(path)}" for path in host.identities),
        *(f"  CertificateFile {_quoted(path)}" for path in host.certificates),
    ]
    if jump:
        lines.append(f"  ProxyJump {jump}")
    elif host.proxy_command:
        lines.append(f"  ProxyCommand {host.proxy_command}")
    return "\n".join(lines) + "\n"


def _quoted(path: str) -> str:
    return '"' + path.replace("%", "%%") + '"'
