"""A record without identity: no host name, user name, token or absolute path in it, so that it can be published with a model."""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path
from typing import Any

from remote_payload.train.run import Run

TOKEN = re.compile(r"\b(hf_|api_org_|sk-|ghp_|github_pat_|glpat-|AKIA)[A-Za-z0-9_-]{8,}")


def without_identity(value: Any, run: Run) -> Any:
    """The value with paths made relative, and without this host's name, this user's name and home, and tokens."""
    paths = {str(run.outputs.resolve().parent): ".", str(Path.cwd()): ".", str(Path.home()): "~"}
    words = {socket.gethostname(): "<host>", _user(): "<user>"}
    return _scrub(
        value,
        {k: v for k, v in paths.items() if len(k) > 1},
        {k: v for k, v in words.items() if len(k) > 2 and k != "root"},
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as containers have
        return ""


def _scrub(value: Any, paths: dict[str, str], words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_scrub(key, paths, words): _scrub(item, paths, words) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub(item, paths, words) for item in value]
    if not isinstance(value, str):
        return value
    for path, short in sorted(paths.items(), key=lambda pair: -len(pair[0])):
        value = value.replace(path, short)
    for word, instead in words.items():
        value = re.sub(rf"(?<![A-Za-z0-9_-]){re.escape(word)}(?![A-Za-z0-9_-])", instead, value)
    return TOKEN.sub("<token>", value)
