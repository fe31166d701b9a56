"""The same Host, written down for OpenSSH: a configuration file of gpurun's own, which rsync's ssh reads instead of the user's."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

from runner.domain import places
from runner.domain.host import Host, parse_address
from runner.files import write_text

ALIAS = "gpurun-box"

# The host keys that count are gpurun's own pins.
_PINS = """\
  UserKnownHostsFile "{known_hosts}"
  GlobalKnownHostsFile none
  CheckHostIP no
"""
# What holds for every connection (ARCHITECTURE.md, "Every connection"), whatever the user's own configuration says.
# AES-GCM first: it is what both ends have in hardware, and it moved 20 % more than the default when measured.
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
# A question about the host key ends where a login would begin.
_NO_LOGIN = """\
  PreferredAuthentications none
  PubkeyAuthentication no
"""


def ssh_argv(host: Host) -> list[str]:
    """``ssh -F <file>``: the command rsync is given with ``-e``; the destination is ``ALIAS``."""
    return ["ssh", "-F", str(write_config(host))]


def write_config(host: Host) -> Path:
    """The file under which rsync's ssh reaches ``ALIAS``: the box, by gpurun's own pins."""
    return _write(config_text(host, places.known_hosts()))


def write_question(host: Host) -> tuple[str, Path]:
    """A destination and the file under which ``ssh`` says what the user's own settings make of this host's key."""
    assert host.trust is not None
    name = parse_address(host.typed).name
    known_hosts = places.known_hosts()
    settings = "".join(f"  {key} {value}\n" for key, value in host.trust.settings) + _algorithms(host.trust.algorithms)
    question = _connection(name, host, _last_jump(host)) + settings + _NO_LOGIN + "  LogLevel DEBUG1\n" + _ALWAYS
    return name, _write(question + _jumps(host, known_hosts))


def _algorithms(wanted: tuple[str, ...]) -> str:
    """The user's HostKeyAlgorithms, if they set any: with OpenSSH's own list it first asks for a key of a type that it knows.

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
    """Writes the file (content-named, so that two processes never disagree about it) and gives its path."""
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
    """How the host is reached, and with which keys."""
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
