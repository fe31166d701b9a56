"""The same Host, written down for OpenSSH: a configuration file of gpurun's own, which rsync's ssh reads instead of the user's."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from runner.domain import places
from runner.domain.host import Host

ALIAS = "gpurun-box"

# What holds for every connection (ARCHITECTURE.md, "Every connection"), whatever the user's own configuration says.
# AES-GCM first: it is what both ends have in hardware, and it moved 20 % more than the default when measured.
_ALWAYS = """\
  StrictHostKeyChecking yes
  UserKnownHostsFile "{known_hosts}"
  GlobalKnownHostsFile none
  UpdateHostKeys no
  CheckHostIP no
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
  LogLevel ERROR
"""


def ssh_argv(host: Host) -> list[str]:
    """``ssh -F <file>``: the command rsync is given with ``-e``; the destination is ``ALIAS``."""
    return ["ssh", "-F", str(write_config(host))]


def write_config(host: Host) -> Path:
    """Writes the file (content-named, so that two processes never disagree about it) and gives its path."""
    text = config_text(host, places.known_hosts())
    folder = places.ssh_configs()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / (hashlib.sha256(text.encode()).hexdigest()[:16] + ".config")
    if not file.exists():
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text(text, "utf-8")
        os.replace(beside, file)
    return file


def config_text(host: Host, known_hosts: Path) -> str:
    """Host blocks for the box and for each jump before it."""
    blocks = []
    previous: str | None = None
    for number, jump in enumerate(host.jumps):
        blocks.append(_block(f"gpurun-jump-{number}", jump, previous, known_hosts))
        previous = f"gpurun-jump-{number}"
    return "".join([_block(ALIAS, host, previous, known_hosts), *blocks])


def _block(alias: str, host: Host, jump: str | None, known_hosts: Path) -> str:
    lines = [
        f"Host {alias}",
        f"  HostName {host.hostname.replace('%', '%%')}",
        f"  Port {host.port}",
        f"  User {host.user}",
        f"  IdentitiesOnly {'yes' if host.identities_only else 'no'}",
        f"  IdentityAgent {_quoted(host.agent_socket) if host.agent_socket else 'none'}",
        *(f"  IdentityFile {_quoted(path)}" for path in host.identities),
    ]
    if jump:
        lines.append(f"  ProxyJump {jump}")
    elif host.proxy_command:
        lines.append(f"  ProxyCommand {host.proxy_command}")
    return "\n".join(lines) + "\n" + _ALWAYS.format(known_hosts=str(known_hosts).replace("%", "%%"))


def _quoted(path: str) -> str:
    return '"' + path.replace("%", "%%") + '"'
