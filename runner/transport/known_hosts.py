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

from runner.domain.errors import HostKeyChanged, StateError
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


class Known(NamedTuple):
    """What known_hosts files say of one name: its keys, and those that must never be taken (``@revoked``)."""

    keys: list[Key]
    revoked: list[Key]

    def __add__(self, other: Known) -> Known:  # type: ignore[override]
        return Known(self.keys + other.keys, self.revoked + other.revoked)


def pinned(file: Path, name: str) -> list[Key]:
    """The keys pinned for a name (``host`` or ``[host]:port``); empty at first contact. Raises StateError as ``known`` does."""
    return known(file, name).keys


def known(file: Path, name: str) -> Known:
    """What gpurun's own file says of a name.

    Raises StateError for a damaged line: half a pin must not look like none.
    """
    entries = list(_entries(file))
    if any(names.startswith(("@", "|")) or set(names) & set("*?!") for names, _ in entries):
        return _ask(str(file), name)  # somebody hashed or edited it: OpenSSH knows what that means
    return Known([key for names, key in entries if name in names.split(",")], [])


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


def known_to_user(host: Host, name: str | None = None) -> Known:
    """What the user's own known_hosts files say of this host (under another ``name``, if given)."""
    said = Known([], [])
    for file in host.user_known_hosts:
        if os.path.isfile(file):
            said += _ask(file, name or host.known_as)
    return said


def _ask(file: str, name: str) -> Known:
    """ssh-keygen's answer: hashed names, patterns and markers mean what they mean to OpenSSH."""
    found = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", file],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    said = Known([], [])
    for line in found.stdout.splitlines():
        words = line.split()
        if line.startswith("@revoked") and len(words) >= 4:
            said.revoked.append(Key(words[2], words[3]))
        elif len(words) >= 3 and not line.startswith(("#", "@")):
            said.keys.append(Key(words[1], words[2]))
    return said


def changed(host: Host, seen: Key, expected: list[Key], where: str) -> HostKeyChanged:
    """The error that stops everything: not the host that was pinned."""
    was = ", ".join(f"{key.type} {key.fingerprint}" for key in expected)
    return HostKeyChanged(
        f"the host key of {host.known_as} is not the one in {where}: it shows {seen.type} {seen.fingerprint}, expected {was}",
        meaning="Nothing was sent and no command ran. Either this address now belongs to another machine, or somebody is in between.",
        hint=f"If you know that the box was replaced: gpurun hosts forget {host.known_as}"
        + ("" if where == "gpurun's known_hosts" else f"  (and ssh-keygen -R '{host.known_as}')"),
    )


def revoked(host: Host, seen: Key) -> HostKeyChanged:
    """The error for a key that a known_hosts file marks as never to be taken."""
    return HostKeyChanged(
        f"{host.known_as} shows {seen.type} {seen.fingerprint}, which a known_hosts file revokes",
        meaning="Nothing was sent and no command ran.",
        hint="Ask whoever revoked the key; ssh-keygen -F shows the line.",
    )


def _entries(file: Path) -> Iterator[tuple[str, Key]]:
    """Names (with ``@marker`` before them, if any) and key of each line."""
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        names, *rest = [" ".join(words[:2]), *words[2:]] if words[0].startswith("@") else words
        if len(rest) < 2 or not _is_whole(key := Key(rest[0], rest[1])):
            raise StateError(
                f"{file}:{number} is no whole entry of a known_hosts file",
                meaning="Nothing was contacted: whether a host is the one that was pinned cannot be said.",
                hint="Remove that line; the host is then shown and pinned anew at the next contact.",
            )
        yield names, key


def _is_whole(key: Key) -> bool:
    """Whether the base64 holds length-prefixed fields to its very end, the first being the type (RFC 4253, 6.6)."""
    try:
        blob = base64.b64decode(key.blob, validate=True)
    except ValueError:
        return False
    fields, at = [], 0
    while at + 4 <= len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        fields.append(blob[at + 4 : end])
        at = end
    return at == len(blob) and len(fields) > 1 and fields[0] == key.type.encode()


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
