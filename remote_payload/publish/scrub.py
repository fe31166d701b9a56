"""Takes out of a model's files what others must not learn: where things lie on this machine and on the box, and secrets.

A local path becomes ``./`` and its last part: no library looks such a name up on the Hub, where it could be a stranger's repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remote_payload.tokens import HUB_TOKEN, without_tokens

REDACTED = "[redacted]"
SHORTEST = 8  # characters of a value that counts as a secret: shorter ones occur in ordinary words
PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----.*?(?:-----END (?:[A-Z]+ ){0,3}PRIVATE KEY-----|\Z)", re.S
)
# Folders at the top of a machine in which people and boxes keep things. Elsewhere "/a/b" in a text may be anything.
TOPS = (
    "Applications|Library|System|Users|Volumes|app|cache|content|data|dev|etc|gpfs|home|kaggle|lustre|media|mnt|nfs|opt|private|proc"
    "|project|projects|root|run|scratch|shared|srv|storage|sys|tmp|usr|var|work|workspace|workspaces"
)  # fmt: skip
BEGINS = rf"file:/{{2,3}}(?=[\w~])|~[\w.-]*/|/(?:{TOPS})/|[A-Za-z]:[\\/](?=[\w.])|\\\\[\w. -]+\\"
BEFORE = r"(?<![\w.~/\\-])"
WHOLE = re.compile(r"\s*(?:file:/{2,3}\S|~[\w.-]*/|/+[^/\n]+/+[^/\n]|[A-Za-z]:[\\/]\S|\\\\\S)[^\n]*", re.S)


class Scrubber:
    """Knows the secrets and the folders of this machine that must not be published."""

    def __init__(self, secrets: Sequence[str] = (), folders: Sequence[Path] = ()) -> None:
        self._secrets = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True)
        known = {str(each) for each in (*folders, Path.home(), Path.cwd())}
        known |= {os.path.realpath(each) for each in known}
        # "/" or "/root" say nothing, and occur in ordinary text.
        self._known = sorted((each for each in known if each.count(os.sep) > 1), key=len, reverse=True)
        begins = "|".join([*(re.escape(each) + r"(?!\w)" for each in self._known), BEGINS])
        self._quoted = re.compile(rf"(?P<quote>[\"'`])(?P<path>(?:{begins})[^\"'`\n]*)(?P=quote)")
        self._inside = re.compile(rf"{BEFORE}(?:{begins})[^\s\"'`<>|*?,;()\[\]{{}}]*")

    def text(self, text: str) -> str:
        """A text in which paths stand among words, such as a card."""
        text = self.without_secrets(text)
        text = self._quoted.sub(lambda found: found["quote"] + shown(found["path"]) + found["quote"], text)
        return self._inside.sub(lambda found: shown(found[0]), text)

    def value(self, value: Any) -> Any:
        """A JSON value. A string that is a path as a whole becomes its name; others as ``text``."""
        if isinstance(value, dict):
            return {str(self.value(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, str):
            return value
        if "\n" not in value and WHOLE.fullmatch(value):
            return self.without_secrets(shown(value))
        return self.text(value)

    def finds(self, text: str) -> bool:
        """Whether a text that is published as it is (a vocabulary, a template) holds a secret or a folder of this machine."""
        return self.without_secrets(text) != text or any(folder in text for folder in self._known)

    def without_secrets(self, text: str) -> str:
        """A text whose paths stay, its tokens, keys and known secrets replaced."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return without_tokens(HUB_TOKEN.sub(REDACTED, PRIVATE_KEY.sub(REDACTED, text)), REDACTED)


def shown(path: str) -> str:
    """A local path as others may see it: ``./`` and its last part."""
    ending = re.search(r"[.:!]*$", path)
    tail = ending[0] if ending else ""
    parts = [part for part in re.split(r"[/\\]+", path.strip()[: len(path.strip()) - len(tail)]) if part]
    last = parts[-1] if parts else ""
    below_home = len(parts) == 2 and parts[0] in ("home", "Users")  # then the last part is somebody's name
    # What is left may not begin as a path again: a drive's letter, a user's folder.
    return "./" + ("home" if below_home else last.lstrip("~").replace(":", "") or "home") + tail
