"""The ``%`` tokens and ``${VARIABLES}`` that OpenSSH expands in its configuration (ssh_config(5), TOKENS)."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket


def tokens(name: str, hostname: str, port: str, user: str, jump: str = "") -> dict[str, str]:
    """The tokens that are known before a connection is open; ``name`` is the host as typed."""
    here = socket.gethostname()
    digest = hashlib.sha1((here + hostname + port + user + jump).encode(), usedforsecurity=False).hexdigest()
    return {
        "%": "%", "C": digest, "d": os.path.expanduser("~"), "h": hostname, "i": str(os.getuid()), "j": jump, "k": hostname,
        "L": here.split(".")[0], "l": here, "n": name, "p": port, "r": user, "u": getpass.getuser(),
    }  # fmt: skip


def expand(text: str, known: dict[str, str]) -> str:
    """``text`` with its tokens and environment variables replaced; unknown ones stay."""
    text = re.sub(r"%(.)", lambda found: known.get(found[1], found[0]), text)
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), text)


def expand_path(text: str, known: dict[str, str]) -> str:
    """``expand`` for the name of a file, which may begin with ``~``."""
    return os.path.expanduser(expand(text, known))
