"""What a secret looks like in text, so that it can be kept out of pushes, job files, logs and messages."""

from __future__ import annotations

import re

# Each pattern is anchored on what the issuer documents (prefix, alphabet, length) and on a character before it that cannot belong to an
# identifier: ``hf_hub_download`` and ``task-sk-list`` are words, not tokens.
_PATTERNS = {
    "a Hugging Face token": r"hf_(?=[A-Za-z]*[A-Z])[A-Za-z]{30,40}(?![A-Za-z0-9_])",
    "an AWS access key": r"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9_])",
    "a GitHub token": r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255})(?![A-Za-z0-9_])",
    "an API key (sk-…)": r"sk-(?=[A-Za-z_-]*[0-9])(?:[A-Za-z0-9]+-)*[A-Za-z0-9_]{32,255}(?![A-Za-z0-9_])",
    "a Slack token": r"xox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{16,255}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\r?\n",
}
_NAMES = tuple(_PATTERNS)
_TOKEN = re.compile(
    ("(?<![A-Za-z0-9_-])(?:" + "|".join(f"({pattern})" for pattern in _PATTERNS.values()) + ")").encode("ascii")
)
# Every pattern needs one of these: searching for them first is many times faster than the pattern itself.
_HINTS = (
    b"hf_",
    b"AKIA",
    b"ASIA",
    b"ghp_",
    b"gho_",
    b"ghu_",
    b"ghs_",
    b"ghr_",
    b"github_pat_",
    b"sk-",
    b"xox",
    b"PRIVATE KEY-----",
)


def find_token(content: bytes) -> str | None:
    """What kind of secret ``content`` holds (``"a Hugging Face token"``), or None."""
    if not any(hint in content for hint in _HINTS):
        return None
    match = _TOKEN.search(content)
    return None if match is None or match.lastindex is None else _NAMES[match.lastindex - 1]


def without_tokens(text: str) -> str:
    """The text with everything that looks like a secret replaced by ``…``."""
    raw = text.encode("utf-8", "surrogatepass")
    return _TOKEN.sub("…".encode(), raw).decode("utf-8", "surrogatepass") if find_token(raw) else text
