"""gpurun's own known_hosts file: the pinned key of each box, in OpenSSH's format, so that both SSH stacks can read it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from runner.domain.errors import HostError, HostKeyChanged, StateError
from runner.domain.host import Host, Trust
from runner.files import file_lock, write_text, writing

# Called with a host that neither gpurun nor OpenSSH knows and its key's fingerprint; it raises to refuse the host.
FirstContact = Callable[[Host, str], None]


class Key(NamedTuple):
    """A host key as in a known_hosts file: its type and its public half in base64."""

    type: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` as ssh-keygen prints it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class Known(NamedTuple):
    """The keys that known_hosts files have for one name, and those that must never be accepted (``@revoked``)."""

    keys: list[Key]
    revoked: list[Key]


def pinned(file: Path, name: str) -> list[Key]:
    """The keys pinned for a name (``host`` or ``[host]:port``); empty at first contact. Raises StateError as ``known`` does."""
    return known(file, name).keys


def known(file: Path, name: str) -> Known:
    """The keys that gpurun's own file has for a name.

    Raises StateError for a damaged line: a damaged pin must not count as no pin.
    """
    entries = list(_entries(file))
    if any(names.startswith(("@", "|")) or set(names) & set("*?!") for names, _ in entries):
        return _ask(str(file), name)  # hashed or edited by somebody: OpenSSH knows how to read that
    return Known([key for names, key in entries if name in names.split(",")], [])


def names_of(file: Path, key: Key) -> list[str]:
    """The names that gpurun's own file has this very key for. Raises StateError as ``known`` does."""
    return [names for names, each in _entries(file) if each == key and not names.startswith(("@", "|"))]


def pin(file: Path, name: str, key: Key) -> None:
    """Adds a key for a name; the file is replaced as a whole, under a lock."""
    with _locked(file) as lines:
        lines.append(f"{name} {key.type} {key.blob}")


def forget(file: Path, name: str) -> int:
    """Removes every key of a name; gives their number."""
    with _locked(file) as lines:
        kept = [line for line in lines if name not in line.split(" ", 1)[0].split(",")]
        removed = len(lines) - len(kept)
        lines[:] = kept
    return removed


def is_revoked(trust: Trust | None, seen: Key) -> bool:
    """Whether one of the user's files revokes this key; it must not be accepted then, even if it is pinned.

    Raises HostError for a list of revoked keys that cannot be read: OpenSSH refuses every host then.
    """
    if trust is None:
        return False
    for name in trust.known_hosts:
        with contextlib.suppress(OSError):
            for line in Path(name).read_text("utf-8", "replace").splitlines():
                if line.startswith("@revoked") and seen.blob in line.split():
                    return True
    return trust.revoked is not None and _in_revocation_list(Path(trust.revoked), seen)


def _in_revocation_list(file: Path, seen: Key) -> bool:
    """Whether ``RevokedHostKeys`` names the key: the file has a public key a line, or is a revocation list of ``ssh-keygen -k``."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise HostError(
            f"your ssh configuration names a list of revoked host keys that cannot be read: {file} ({error.strerror})",
            meaning="Nothing was sent and no command ran; ssh refuses every host then, and so does gpurun.",
            hint="Correct RevokedHostKeys in your ssh configuration.",
        ) from None
    if not content.startswith(b"SSHKRL\n\0"):
        return any(seen.blob.encode() in line.split() for line in content.splitlines())
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as public:
        public.write(f"{seen.type} {seen.blob}\n")
        public.flush()
        query = subprocess.run(
            ["ssh-keygen", "-Q", "-f", str(file), public.name], stdin=subprocess.DEVNULL, capture_output=True
        )
    return query.returncode != 0


def _ask(file: str, name: str) -> Known:
    """The keys that ssh-keygen finds: hashed names, patterns and markers mean what they mean to OpenSSH."""
    found = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", file],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    answer = Known([], [])
    for line in found.stdout.splitlines():
        words = line.split()
        if line.startswith("@revoked") and len(words) >= 4:
            answer.revoked.append(Key(words[2], words[3]))
        elif len(words) >= 3 and not line.startswith(("#", "@")):
            answer.keys.append(Key(words[1], words[2]))
    return answer


def changed(host: Host, seen: Key, expected: list[Key]) -> HostKeyChanged:
    """The error for a host whose key is not one of its pins."""
    was = ", ".join(f"{key.type} {key.fingerprint}" for key in expected)
    return HostKeyChanged(
        f"the host key of {host.known_as} is not the one in gpurun's known_hosts: it shows {seen.type} {seen.fingerprint}, expected {was}",
        meaning="Nothing was sent and no command ran. Either this address now belongs to another machine, or somebody is in between.",
        hint=f"If you know that the box was replaced: gpurun hosts forget {host.known_as}",
    )


def refused_by_openssh(host: Host, fingerprint: str, message: str) -> HostKeyChanged:
    """The error for a host that is new to gpurun and that ``ssh`` refuses, with ssh's own message, which names file and line."""
    return HostKeyChanged(
        f"ssh refuses the host key of {host.known_as} ({fingerprint}) with your known_hosts:\n{message.strip()}",
        meaning="Nothing was sent and no command ran. Either this address now belongs to another machine, or somebody is in between.",
        hint=f"If you know that the box was replaced: ssh-keygen -R '{host.known_as}', or remove the line that is named above.",
    )


def unknown_to_strict(host: Host, seen: Key) -> HostError:
    """The error for a new host where the user's ssh configuration accepts only known keys."""
    return HostError(
        f"{host.known_as} is new to this machine: {seen.type} {seen.fingerprint}",
        meaning="Nothing was sent: your ssh configuration says StrictHostKeyChecking yes (or BatchMode yes) for this host.",
        hint="Compare the fingerprint with your provider's console, then add the key to your known_hosts: "
        f"ssh-keyscan -p {host.port} {host.hostname} >> ~/.ssh/known_hosts",
    )


def two_faces(host: Host, other: str) -> HostKeyChanged:
    """The error for a host that shows gpurun another key than it shows OpenSSH."""
    return HostKeyChanged(
        f"{host.known_as} shows OpenSSH another {other} host key than it shows gpurun",
        meaning="Nothing was sent and no command ran. Several machines answer at this address, or somebody is in between.",
        hint="Try the provider's direct address of the box.",
    )


def revoked(host: Host, seen: Key) -> HostKeyChanged:
    """The error for a key that a known_hosts file revokes."""
    return HostKeyChanged(
        f"{host.known_as} shows {seen.type} {seen.fingerprint}, which a known_hosts file revokes",
        meaning="Nothing was sent and no command ran.",
        hint="Ask whoever revoked the key; ssh-keygen -F shows the line.",
    )


def _entries(file: Path) -> Iterator[tuple[str, Key]]:
    """Names (after an ``@marker``, if there is one) and key of each line. Raises StateError."""
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(
            f"{file} cannot be read ({error.strerror})",
            meaning="Nothing was contacted: gpurun cannot tell whether a host is the one that was pinned.",
            hint="Mend its permissions, or move it away; hosts are then shown and pinned anew.",
        ) from None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        names, *rest = [" ".join(words[:2]), *words[2:]] if words[0].startswith("@") else words
        if len(rest) < 2 or not _is_complete(key := Key(rest[0], rest[1])):
            raise StateError(
                f"{file}:{number} is no complete entry of a known_hosts file",
                meaning="Nothing was contacted: gpurun cannot tell whether a host is the one that was pinned.",
                hint="Remove that line; the host is then shown and pinned anew at the next contact.",
            )
        yield names, key


def _is_complete(key: Key) -> bool:
    """Whether the base64 consists of length-prefixed fields, of which the first is the type (RFC 4253, 6.6)."""
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
    """The file's lines, which the block may change; they replace the file unless the block raises."""
    with file_lock(file), writing(file):
        lines = file.read_text("utf-8", "replace").splitlines() if file.exists() else []
        yield lines
        write_text(file, "".join(line + "\n" for line in lines))
