"""What a secret looks like in text, so that it can be kept out of pushes, job files, logs and messages."""

from __future__ import annotations

import re
from collections.abc import Iterator

# kind → the beginnings of such tokens, and what follows: the alphabet and length that the issuer documents. Not hf_xxxxxxxxxxxxxxxx….
_KINDS = (
    ("a Hugging Face token", ("hf_",), r"(?!([A-Za-z0-9])\1{15})[A-Za-z0-9]{30,40}(?![A-Za-z0-9_])"),
    ("a Hugging Face token", ("hf_oauth_", "hf_jwt_"), r"[A-Za-z0-9._-]{16,4096}"),
    ("an AWS access key", ("AKIA", "ASIA"), r"[A-Z2-7]{16}(?![A-Za-z0-9_])"),
    ("a GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{36,255}(?![A-Za-z0-9_])"),
    ("a GitHub token", ("github_pat_",), r"[A-Za-z0-9_]{60,255}"),
    (
        "an API key (sk-…)",
        ("sk-",),
        r"(?=[A-Za-z_-]{0,80}[0-9])(?:[A-Za-z0-9]{1,40}-){0,4}[A-Za-z0-9_]{32,255}(?![A-Za-z0-9_])",
    ),
    ("a Slack token", ("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"), r"[0-9]{8,20}-[A-Za-z0-9-]{16,255}"),
    ("a private key", ("-----BEGIN ",), r"(?:[A-Z]{1,20} ){0,3}PRIVATE KEY-----(?=\s|\\n)"),
)


def _pattern(beginning: str, rest: str) -> re.Pattern[bytes]:
    """Begins with a literal, which ``re`` finds many times faster than anything else; the character before it may not be a word's."""
    before = "" if beginning.startswith("-") else f"(?<![A-Za-z0-9_-]{beginning})"
    return re.compile((beginning + before + rest).encode("ascii"))


_PATTERNS = [
    (beginning.encode("ascii"), _pattern(beginning, rest), kind)
    for kind, beginnings, rest in _KINDS
    for beginning in beginnings
]


def _found_in(content: bytes) -> Iterator[tuple[re.Pattern[bytes], str]]:
    for beginning, pattern, kind in _PATTERNS:
        if beginning in content and pattern.search(content):
            yield pattern, kind


def find_token(content: bytes) -> str | None:
    """What kind of secret ``content`` holds (``"a Hugging Face token"``), or None."""
    return next((kind for _, kind in _found_in(content)), None)


def without_tokens(text: str, instead: str) -> str:
    """The text with ``instead`` in place of everything that looks like a secret."""
    raw = text.encode("utf-8", "surrogatepass")
    for pattern, _ in _found_in(raw):
        raw = pattern.sub(instead.encode(), raw)
    return raw.decode("utf-8", "surrogatepass")
