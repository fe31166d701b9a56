"""What a hub knows: models with their revisions, accounts by token, every request seen."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LARGE = (".safetensors", ".bin")  # what the public hub keeps outside git and serves by redirect


def git_blob(content: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def large_facts(content: bytes) -> tuple[str, int]:
    """sha256 and size of a large file. Of one in the Xet store the hub has these two instead of the content."""
    if content.startswith(b"xet "):
        _, sha256, size = content.decode().split()
        return sha256, int(size)
    return hashlib.sha256(content).hexdigest(), len(content)


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, and the status it was answered with."""

    method: str
    path: str
    headers: dict[str, str]
    status: int

    @property
    def token(self) -> str | None:
        value = self.headers.get("authorization", "")
        return value.removeprefix("Bearer ") or None


@dataclass
class Account:
    """Whom a token belongs to. ``granted`` are the gated and private models it may read."""

    name: str
    role: str | None = "read"  # None: a browser login, of which whoami tells no role
    permissions: tuple[str, ...] = ()
    granted: set[str] = field(default_factory=set)

    @property
    def may_write(self) -> bool:
        return self.role in ("write", None) or any(each.endswith(".write") for each in self.permissions)

    def whoami(self) -> dict[str, Any]:
        if self.role is None:
            return {"type": "user", "name": self.name, "auth": {"type": "oauth"}}
        access: dict[str, Any] = {"displayName": "test", "role": self.role}
        if self.role == "fineGrained":
            entity = {"_id": "1", "type": "user", "name": self.name}
            access["fineGrained"] = {
                "global": [],
                "scoped": [{"entity": entity, "permissions": list(self.permissions)}],
            }
        return {"type": "user", "name": self.name, "auth": {"type": "access_token", "accessToken": access}}


@dataclass
class Model:
    """A repository: its revisions, newest last under ``main``."""

    id: str
    gated: bool = False
    private: bool = False
    revisions: dict[str, str] = field(default_factory=dict)  # branch, tag or commit → commit
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)  # the metadata of its card, as the hub tells it


class Hub:
    """The state that tests arrange and look at: ``models``, ``accounts`` by token, ``requests``."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.accounts: dict[str, Account] = {}
        self.requests: list[Seen] = []
        self.endpoint = ""
        self.storage = ""  # the same server under another host name: the client must not send the token there
        self.stored: dict[str, bytes] = {}  # what was uploaded by LFS, by sha256
        self.xet: Path | None = None  # a folder: large files are written there by the client's Xet library
        self.refused_commits = 0  # so many of the next commits are answered with a 500
        self.messages: list[str] = []  # of the commits that clients made
        self.broken = False  # every answer is a 503
        self.stalls: dict[str, int] = {}
        self.released = threading.Event()

    def add_model(
        self,
        model: str,
        files: dict[str, bytes] | Path,
        *,
        gated: bool = False,
        private: bool = False,
        tag: str = "",
        card: dict[str, Any] | None = None,
    ) -> str:
        """Publishes a folder (or names with their content) as the newest commit of ``main``; returns that commit."""
        if isinstance(files, Path):
            files = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        digest = hashlib.sha1(model.encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha256(content).digest())
        commit = digest.hexdigest()
        entry = self.models.setdefault(model, Model(model, gated, private))
        entry.card = card or entry.card
        entry.commits[commit] = dict(files)
        entry.revisions.update({"main": commit, commit: commit} | ({tag: commit} if tag else {}))
        return commit

    def files(self, model: str) -> dict[str, bytes]:
        """The files of the newest commit, with their content."""
        return self.models[model].commits[self.models[model].revisions["main"]]

    def add_account(
        self,
        token: str,
        name: str,
        role: str | None = "read",
        permissions: tuple[str, ...] = (),
        granted: tuple[str, ...] = (),
    ) -> str:
        """Makes ``token`` known as that of ``name`` and returns it."""
        self.accounts[token] = Account(name, role, permissions, set(granted))
        return token

    def stall(self, file: str, after: int) -> None:
        """Downloads of ``file`` stop after that many bytes, without an end, until ``release``."""
        self.stalls[file] = after

    def release(self) -> None:
        """Lets go of what stalled (those connections are cut) and stalls nothing more."""
        self.stalls.clear()
        self.released.set()

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """Variables for a process that shall know this hub only: its own cache, and a token file as the box has it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        home.mkdir(parents=True, exist_ok=True)
        file = home / "token-file"
        if token:
            file.write_text(token)
            file.chmod(0o600)
        return kept | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_TOKEN_PATH": str(file),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def downloads(self, file: str) -> list[Seen]:
        """The GET requests that asked for the content of ``file``."""
        return [seen for seen in self.requests if seen.method == "GET" and unquote(seen.path).endswith("/" + file)]

    def saw(self, secret: str) -> list[Seen]:
        """The requests that carried ``secret`` anywhere."""
        return [seen for seen in self.requests if secret in seen.path or secret in json.dumps(seen.headers)]
