"""gpurun's own known_hosts: one pinned key a box, read by both SSH stacks in OpenSSH's own format."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from runner.domain.errors import HostKeyChanged
from runner.domain.host import Host


class Key(NamedTuple):
    """A host key as known_hosts spells it: its type and the base64 of its public half."""

    type: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` as ssh-keygen prints it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def pinned(file: Path, name: str) -> list[Key]:
    """The keys pinned for a name (``host`` or ``[host]:port``); empty at first contact."""
    return [key for names, key in _lines(file) if name in names.split(",")]


def pin(file: Path, name: str, key: Key) -> None:
    """Remembers a key; the file is replaced as a whole, under a lock."""
    with _locked(file) as lines:
        lines.append(f"{name} {key.type} {key.blob}")


def forget(file: Path, name: str) -> int:
    """Removes every key of a name; how many there were."""
    with _locked(file) as lines:
        kept = [line for line in lines if name not in line.split(" ", 1)[0].split(",")]
        removed = len(lines) - len(kept)
        lines[:] = kept
    return removed


def known_to_user(host: Host) -> list[Key]:
    """What the user's own known_hosts files say of this host, hashed entries included (asked of ssh-keygen)."""
    keys = []
    for file in host.user_known_hosts:
        if not os.path.isfile(file):
            continue
        found = subprocess.run(
            ["ssh-keygen", "-F", host.known_as, "-f", file], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        for line in found.stdout.splitlines():
            words = line.split()
            if len(words) >= 3 and not line.startswith(("#", "@")):
                keys.append(Key(words[1], words[2]))
    return keys


def changed(host: Host, seen: Key, expected: list[Key], where: str) -> HostKeyChanged:
    """The error that stops everything: not the host that was pinned."""
    was = ", ".join(f"{key.type} {key.fingerprint}" for key in expected)
    return HostKeyChanged(
        f"the host key of {host.known_as} is not the one in {where}: it shows {seen.type} {seen.fingerprint}, expected {was}",
        meaning="Nothing was sent and no command ran. Either this address now belongs to another machine, or somebody is in between.",
        hint=f"If you know that the box was replaced: gpurun hosts forget {host.known_as}"
        + ("" if where == "gpurun's known_hosts" else f"  (and ssh-keygen -R '{host.known_as}')"),
    )


def _lines(file: Path) -> Iterator[tuple[str, Key]]:
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not line.startswith("#"):
            yield words[0], Key(words[1], words[2])


@contextmanager
def _locked(file: Path) -> Iterator[list[str]]:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(file.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = file.read_text("utf-8", "replace").splitlines() if file.exists() else []
        yield lines
        beside = file.with_suffix(".tmp")
        with open(beside, "w", encoding="utf-8") as target:
            target.write("".join(line + "\n" for line in lines))
            target.flush()
            os.fsync(target.fileno())
        os.replace(beside, file)
